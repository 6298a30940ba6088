"""Configuration of the documentation; build it with ``sphinx-build -W -n docs docs/_build``."""

import sys
from importlib.metadata import version as installed_version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "Thresher"
author = "The Thresher developers"
copyright = "the Thresher developers"
release = version = installed_version("thresher")

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "numpydoc",
    "myst_parser",
    "generated_pages",
]
exclude_patterns = ["_build", "_ext", "_static"]
root_doc = "index"

# Types are given in words, with shapes, by the docstrings themselves.
autodoc_typehints = "none"
autodoc_member_order = "bysource"
autosummary_generate = False
numpydoc_show_class_members = False

myst_heading_anchors = 3
nitpicky = True
# Attributes of instances are described by their class and have no entry of their own.
nitpick_ignore_regex = [("py:attr", r"[a-z_]+")]

html_theme = "furo"
html_static_path = ["_static"]
html_title = f"Thresher {release}"
