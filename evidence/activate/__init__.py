"""Evidence on activation sparsity."""
