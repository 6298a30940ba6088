"""Evidence on solvers of penalised problems."""
