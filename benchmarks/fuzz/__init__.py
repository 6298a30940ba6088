"""Damaged sparse folders: what Thresher makes of them, held against the text of the format."""
