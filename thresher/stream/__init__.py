"""Sending calibration data through a model, one block after another."""
