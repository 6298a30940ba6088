"""Evidence on sparse linear models and recovery."""
