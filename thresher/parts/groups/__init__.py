"""Coupled groups: which slices of a module's parameters go together, and removing them."""
