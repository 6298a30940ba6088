"""Evidence on pruning after training."""
