"""What dropped inputs save in the engine: products, and whole models."""
