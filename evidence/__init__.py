"""Experiments that rerun the papers' claims, one file per method."""
