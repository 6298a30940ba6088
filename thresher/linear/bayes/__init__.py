"""Sparse Bayesian regression: priors, expectation-maximisation, structured supports."""
