"""Docstrings broken anew for the terminal."""

import inspect
import re

import pytest

from thresher.core.card import catalogue
from thresher.report.docstrings import wrapped

TEXT = """Summary.

A paragraph of several words that
goes on : here.

Another one of two lines, which is
long enough.

Parameters
----------
alpha : float
    Its description has two
    lines.
beta : int
gamma : int

Examples
--------
>>> 1 +  1
2"""


def test_paragraphs_are_joined_and_all_else_is_kept():
    lines = wrapped(TEXT, 200).splitlines()
    assert "Another one of two lines, which is long enough." in lines
    assert "    Its description has two lines." in lines
    assert lines[lines.index("Parameters") + 1] == "----------"
    assert lines[lines.index("beta : int") + 1] == "gamma : int"
    assert lines[-4:] == ["Examples", "--------", ">>> 1 +  1", "2"]


def test_narrow_lines_keep_their_indentation():
    lines = wrapped(TEXT, 20).splitlines()
    at = lines.index("    Its description")
    assert lines[at + 1 : at + 3] == ["    has two lines.", "beta : int"]


@pytest.mark.parametrize("method", catalogue().values(), ids=list(catalogue()))
def test_no_word_of_a_method_is_lost(method):
    def bare(text):
        return re.sub(r":[\w:]+:(?=`)|[`~]", "", text).split()

    shown = wrapped(inspect.getdoc(method), 80)
    assert bare(shown) == bare(inspect.getdoc(method))
    assert ":`" not in shown


def test_markup_is_plain_text():
    text = "See :class:`~a.b.C`, :ref:`the page <there>`, :math:`x` and ``code``: `name` stays."
    assert wrapped(text, 99) == "See a.b.C, the page, x and code: `name` stays."
