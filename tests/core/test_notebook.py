"""What notebooks show."""

import dataclasses

from rich.table import Table

from thresher.core.notebook import html_of, html_of_parts, html_table


def test_cells_are_escaped_and_rows_named():
    text = html_table("a <table>", [("<b>", 1.5)], ["what", "how much"])
    assert "<caption>a &lt;table&gt;</caption>" in text
    assert '<th scope="row">&lt;b&gt;</th><td>1.5</td>' in text
    assert '<th scope="col">how much</th>' in text


def test_a_table_of_the_terminal_keeps_rows_and_caption():
    table = Table(title="sizes", caption="said <below>")
    table.add_column("layer")
    table.add_column("MB")
    table.add_row("q", "1")
    text = html_of(table)
    assert '<tr><th scope="row">q</th><td>1</td></tr>' in text
    assert text.endswith("<p>said &lt;below&gt;</p>")


def test_parts_are_shown_by_name():
    kind = dataclasses.make_dataclass("Kind", [("score", str)])
    assert '<th scope="row">score</th><td>&#x27;a&#x27;</td>' in html_of_parts(kind("a"))
