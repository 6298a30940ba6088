"""Docstrings on a terminal of any width."""

from __future__ import annotations

__all__ = ["wrapped"]

import re
import textwrap

#: A name or a text in the markup of Sphinx, with a title of its own or without.
_ROLE = re.compile(r":[\w:]+:`~?([^`<]*?)(?:\s*<[^`>]*>)?`")
_LITERAL = re.compile(r"``([^`]+)``")


def wrapped(text: str, width: int) -> str:
    """Return a numpydoc docstring without markup, whose paragraphs are broken anew.

    Parameters
    ----------
    text : str
        As ``inspect.getdoc`` returns it.
    width : int
        Columns of the terminal; the examples at the end keep their own lines.
    """
    prose, heading, examples = text.partition("\nExamples\n")
    paragraphs: list[str] = []
    for line in _plain(prose).splitlines():
        if paragraphs and _continues(paragraphs[-1], line):
            paragraphs[-1] += " " + line.strip()
        else:
            paragraphs.append(line)
    return "\n".join(_filled(paragraph, width) for paragraph in paragraphs) + heading + examples


def _plain(text: str) -> str:
    """Return a text whose names are what one can import, and whose code stands by itself."""
    return _LITERAL.sub(r"\1", _ROLE.sub(r"\1", text))


def _continues(before: str, line: str) -> bool:
    """Return whether a line goes on with the paragraph before it."""
    if not before.strip() or not line.strip() or _indent(before) != _indent(line):
        return False
    # Neither the line under a heading nor the name of a parameter without a description.
    return not any(set(each.strip()) == {"-"} or " : " in each for each in (before, line))


def _indent(line: str) -> str:
    return line[: len(line) - len(line.lstrip())]


def _filled(paragraph: str, width: int) -> str:
    indent = _indent(paragraph)
    return textwrap.fill(
        paragraph.strip(),
        width,
        initial_indent=indent,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
