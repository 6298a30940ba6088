"""Penalised problems: a datafit, a penalty, a solver, and paths; no torch."""

# The compiled module lies in the room `linear`, whose start imports this one.
from .. import linear as linear
