"""Experiments on layouts, kernels and sparse training."""
