"""Text from whole models: the engine beside llama.cpp and torch, from the same files."""
