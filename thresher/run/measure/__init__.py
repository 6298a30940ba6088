"""Timing layouts beside dense layers, and choosing by it."""
