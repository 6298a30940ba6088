"""Thresher side by side with its peers."""
