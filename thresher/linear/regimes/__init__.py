"""Regression where data are private, sketched, corrupted, incomplete or costly."""
