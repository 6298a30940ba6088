"""Model folders: reading, writing and loading sparse checkpoints."""
