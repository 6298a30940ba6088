"""Running and storing sparse models: layouts, packing by measurement, checkpoints."""
