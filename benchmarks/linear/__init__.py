"""Sparse linear models side by side with peers, each library in its own environment."""
