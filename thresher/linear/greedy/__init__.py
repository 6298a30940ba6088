"""Selection of columns one after another, and searches over supports."""
