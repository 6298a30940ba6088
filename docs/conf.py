"""Configuration of the documentation; build it with ``sphinx-build -W -n docs docs/_build``."""

import sys
from importlib.metadata import version as installed_version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_ext"))
# The examples take their data from the benchmarks, which are not installed.
sys.path.insert(0, str(Path(__file__).parents[1]))

project = "Thresher"
author = "The Thresher developers"
copyright = "the Thresher developers"
release = version = installed_version("thresher")

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "numpydoc",
    "myst_parser",
    "sphinx_gallery.gen_gallery",
    "generated_pages",
]
exclude_patterns = ["_build", "_ext", "_static"]
root_doc = "index"

# Types are given in words, with shapes, by the docstrings themselves.
autodoc_typehints = "none"
autodoc_member_order = "bysource"
autosummary_generate = False
numpydoc_show_class_members = False

sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "examples",
    "filename_pattern": r"\.py$",
    "image_srcset": ["2x"],
    "run_stale_examples": True,  # the package may have changed where the script has not
    "write_computation_times": False,  # they differ from build to build
}

myst_heading_anchors = 3
nitpicky = True
# Attributes of instances are described by their class and have no entry of their own.
nitpick_ignore_regex = [("py:attr", r"[a-z_]+")]

html_theme = "furo"
html_title = f"Thresher {release}"
