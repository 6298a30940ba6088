"""Models small enough to read, and what made a model predict what it does."""
