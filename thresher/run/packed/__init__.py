"""Modules that hold their weights packed."""
