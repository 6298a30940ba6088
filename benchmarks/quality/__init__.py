"""Perplexity after pruning, beside the algorithms as llm-compressor runs them."""
