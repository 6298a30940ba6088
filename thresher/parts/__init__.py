"""The shared parts that pruning methods are made of: scores, patterns, budgets, updates.

They work on tensors of one layer. What runs a model to feed them is in
:mod:`thresher.stream`.
"""
