"""Sparse vectors from few measurements."""
