"""Penalised problems: a datafit, a penalty, a solver, and paths; no torch."""
