"""Estimators that minimise a datafit plus a penalty, and the choice of its strength."""
