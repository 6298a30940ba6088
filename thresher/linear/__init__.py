"""Sparse linear models and recovery, with scikit-learn's face and without torch."""
