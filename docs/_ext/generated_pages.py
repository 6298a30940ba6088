"""Writes, before every build, the pages that are read off the package.

``api/`` gets a page a module, from its docstrings; ``methods/`` a page a method of the
catalogue, from its card and its recorded evidence, and the table of measured perplexities;
``tables/`` gets the comparison of features, from its data file; ``cli`` is what the commands say of
themselves. Nothing keeps any of these by hand.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
import shutil
import tomllib
from collections import defaultdict
from importlib.resources import files
from pathlib import Path
from typing import Any

import click
from measured import CUTS, circumstances, measured_rows
from sphinx.util.rst import escape

import thresher
from thresher.cli import main
from thresher.core.card import Catalogued, catalogue
from thresher.core.discovery import import_modules
from thresher.core.drawing import draw, palette
from thresher.core.figure import Figure
from thresher.core.named import Spelled
from thresher.report.methods import earlier_rule, evidence_result, method_data, provenance

# The command line documents itself, and evidence has its place on the methods' pages.
_NOT_API = ("thresher.cli", "thresher.evidence")
_INKS = "--ink: var(--color-foreground-primary); --line: var(--color-background-border);"
#: The theme sets which scheme a reader chose, and leaves "auto" to the system.
_COLOURS = f"""
body {{ {_INKS} {palette("light")} }}
body[data-theme="dark"] {{ {palette("dark")} }}
@media (prefers-color-scheme: dark) {{ body:not([data-theme="light"]) {{ {palette("dark")} }} }}
.evidence-figure svg {{ display: block; width: 100%; }}
.evidence-figure text {{ font-family: inherit; }}
"""


def setup(app: Any) -> dict[str, bool]:
    """Connect to Sphinx."""
    app.connect("config-inited", lambda app, config: write_pages(Path(app.srcdir)))
    app.connect("missing-reference", resolve_imported_name)
    app.connect("autodoc-skip-member", skip_metadata_routing)
    app.connect("builder-inited", write_colours)
    app.add_css_file("figures.css")
    return {"parallel_read_safe": True}


def skip_metadata_routing(
    app: Any, kind: str, name: str, member: Any, skip: bool, options: Any
) -> bool | None:
    """Leave out ``set_fit_request`` and its kin, which scikit-learn adds and documents."""
    return True if re.fullmatch(r"set_\w+_request", name) else None


def resolve_imported_name(app: Any, env: Any, node: Any, contnode: Any) -> Any:
    """Resolve a name that a docstring uses as its module imported it, without the full path."""
    if node.get("refdomain") != "py" or node.get("refspecific"):
        return None
    node["refspecific"] = True
    return env.domains["py"].resolve_xref(
        env, node["refdoc"], app.builder, node["reftype"], node["reftarget"], node, contnode
    )


def write_colours(app: Any) -> None:
    """Put the colours of figures into the site, for its light and its dark pages."""
    if app.builder.format == "html":
        static = Path(app.outdir) / "_static"
        static.mkdir(parents=True, exist_ok=True)
        (static / "figures.css").write_text(_COLOURS, "utf-8")


def write_pages(source: Path) -> None:
    """Write the folders of generated pages anew."""
    pages = {f"api/{name}": page for name, page in api_pages().items()}
    pages |= {f"methods/{name}": page for name, page in method_pages().items()}
    pages["tables/features"] = features_page(source / "features.toml")
    for folder in ("api", "methods", "tables"):
        shutil.rmtree(source / folder, ignore_errors=True)
        (source / folder).mkdir()
    pages["cli"] = command_page()
    for name, page in pages.items():
        (source / f"{name}.rst").write_text(page, encoding="utf-8")
    (source / "methods/measured.txt").write_text(measured_table(), encoding="utf-8")


def command_page() -> str:
    """Return every command with what ``--help`` says of it."""
    parts = [_title("Commands")]
    top = click.Context(main, info_name="thresher", max_content_width=90)
    for name in main.list_commands(top):
        command = main.get_command(top, name)
        if not command.hidden:
            inner = click.Context(command, parent=top, info_name=name, max_content_width=90)
            told = command.get_help(inner).splitlines()
            parts += [
                _title(f"thresher {name}", "-"),
                _directive("code-block", "text", lines=told),
            ]
    return "\n".join(parts)


def measured_table() -> str:
    """Return the perplexity of methods on the real model, by how much is removed."""
    return f"{_measured(measured_rows())}\n{circumstances()}\n"


def measured_section(name: str) -> str:
    """Return a method's figures on the real model beside the other methods'; empty without any."""
    rows = measured_rows()
    if name not in rows:
        return ""
    others = {other: cells for other, cells in rows.items() if other != name}
    table = _measured({name: rows[name], **others})
    return f"On a real model:\n\n{table}\n{circumstances()}\n"


def _measured(rows: dict[str, list[str]]) -> str:
    cells = [[f":doc:`/methods/{name}`", *found] for name, found in rows.items()]
    heads = [cut if ":" in cut else f"{cut} removed" for cut in CUTS.values()]
    return _table(["method", *heads], cells)


def api_pages() -> dict[str, str]:
    """Return the reference by page name."""
    rooms: dict[str, list[str]] = defaultdict(list)
    for name in _modules():
        rooms[name.split(".")[1]].append(name)
    parts = [_title("API reference"), _public_names()]
    for room, names in rooms.items():
        parts.append(_title(room, "-"))
        parts.append(_directive("autosummary", options=["nosignatures:"], lines=names))
    everything = [name for names in rooms.values() for name in names]
    parts.append(_directive("toctree", options=["hidden:"], lines=everything))
    return {"index": "\n".join(parts), **{name: _module_page(name) for name in everything}}


def method_pages() -> dict[str, str]:
    """Return the catalogue by page name."""
    rows = [
        [f":doc:`{d['name']}`", d["area"], str(d["year"]), escape(d["summary"]), verdict(d)]
        for d in method_data()
    ]
    table = _table(["method", "area", "year", "what it does", "evidence"], rows)
    names = list(catalogue())
    index = [
        _title("Methods"),
        "Every method, read off the classes that carry a card. ``thresher methods`` prints the "
        "same list.\n",
        table,
        _directive("toctree", options=["hidden:"], lines=["parts", *names]),
    ]
    pages = {name: method_page(method) for name, method in catalogue().items()}
    return {"index": "\n".join(index), "parts": parts_page(), **pages}


def features_page(file: Path) -> str:
    """Return the page that compares the linear rooms with their peers."""
    data = tomllib.loads(file.read_text(encoding="utf-8"))
    peers = data["peers"]
    groups: dict[str, list[dict[str, str]]] = defaultdict(list)
    for feature in data["feature"]:
        groups[feature["group"]].append(feature)
    parts = [
        _title("Feature by feature"),
        "What each package offers, under the name by which its own documentation has it; empty "
        "where that has none.\n",
    ]
    for group, features in groups.items():
        rows = [
            [escape(f["name"]), *(_offered(f.get(name, "")) for name in ("thresher", *peers))]
            for f in features
        ]
        parts += [_title(group, "-"), _table(["", "Thresher", *peers], rows)]
    parts.append(_title("Sources", "-"))
    for name, peer in peers.items():
        links = ", ".join(f"`{_last(url)} <{url}>`__" for url in peer["sources"])
        parts.append(f"* {name} {peer['version']}: {links}")
    return "\n".join([*parts, ""])


def _offered(cell: str) -> str:
    return f"``{cell}``" if cell and not cell.startswith("by ") else escape(cell)


def _last(url: str) -> str:
    return escape(url.rstrip("/").rpartition("/")[2])


def parts_page() -> str:
    """Return the page of the parts that are called by name."""
    import_modules("thresher.parts")
    page = [
        _title("Parts by name"),
        "What the command line and the arguments of ``thresher.prune`` and ``thresher.activate`` "
        "call parts; numbers in them are examples. Parts with settings are made in Python.\n",
    ]
    for base in Spelled.__subclasses__():
        rows = [
            [
                ", ".join(f"``{text}``" for text in kind.spelled()),
                f":class:`~{kind.__module__}.{kind.__qualname__}`",
                str(kind.__doc__).partition("\n")[0],
            ]
            for kind in base.known().values()
        ]
        page += [_title(base.kind.capitalize(), "-"), _table(["name", "class", "what it is"], rows)]
    return "\n".join(page)


def method_page(method: type[Catalogued]) -> str:
    """Return the page of one method."""
    (data,) = method_data(method.card.name)
    fields = [
        f":Paper: {escape(data['title'])}",
        f":Authors: {escape(data['authors'])} ({data['year']})",
        f":Area: {data['area']}",
        f":Class: :class:`{data['class']}`",
    ]
    if data["arxiv"]:
        fields.insert(2, f":arXiv: `{data['arxiv']} <https://arxiv.org/abs/{data['arxiv']}>`__")
    return "\n".join(
        [
            _title(data["name"]),
            f"{escape(data['summary'])}\n",
            *fields,
            "",
            _directive("code-block", "python", lines=["import thresher", "", data["usage"]]),
            _directive("autoclass", data["class"], options=["no-index:"]),
            _title("Evidence", "-"),
            evidence_section(data["name"], evidence_result(data["name"])),
        ]
    )


def figure_json(name: str) -> str | None:
    """Return the recorded figure of a method's evidence, or None."""
    file = files("thresher") / "evidence" / "results" / f"{name}.figure.json"
    return file.read_text(encoding="utf-8") if file.is_file() else None


def figure_section(name: str, claim: str, recorded: str) -> str:
    """Return a recorded figure as it is placed in a page."""
    label = f"Figure: {claim} The table holds its numbers."
    picture = draw(Figure.from_json(recorded), name, label, 720, 440)
    return _directive("raw", "html", lines=[f'<div class="evidence-figure">{picture}</div>'])


def evidence_section(name: str, result: dict[str, Any] | None) -> str:
    """Return what was found when the paper's claim was rerun."""
    if result is None:
        none = f"None is recorded yet. ``thresher evidence {name}`` runs the experiment, if any.\n"
        return "\n".join([none, measured_section(name)])
    outcome = "Reproduced" if result["reproduced"] else "Not reproduced at this scale"
    margin = "not finite" if result["margin"] is None else f"{result['margin']:.4g}"
    versions = ", ".join(f"{key} {value}" for key, value in result["versions"].items())
    parts = [
        f":Claim: {escape(result['claim'])}",
        f":Baseline: {escape(result['baseline'])}",
        f":Verdict: **{outcome}**, margin {margin}",
        *_rule(result.get("slacks", {})),
        *(f":Earlier rule: {escape(earlier_rule(each))}" for each in result.get("earlier", [])),
        f":Seeds: {escape(str(result['seeds']))}",
        *([f":Recorded: {escape(provenance(result))}"] if "machine" in result else []),
        f":Versions: {escape(versions)}",
        "",
        measured_section(name),
        f"{escape(result['summary'])}\n",
    ]
    recorded = figure_json(name)
    if recorded is not None:
        parts.append(figure_section(name, result["claim"], recorded))
    if result["table"]:
        columns = list(result["table"][0])
        rows = [[_cell(row.get(column)) for column in columns] for row in result["table"]]
        parts.append(_table([escape(str(column).replace("_", " ")) for column in columns], rows))
    parts.append(f"``thresher evidence {name}`` reruns it.\n")
    return "\n".join(parts)


def _rule(slacks: dict[str, float | None]) -> list[str]:
    """Return the field that lists the parts of the rule, if there are several."""
    parts = [f"{part} ({_cell(slack)})" for part, slack in slacks.items()]
    return [f":Rule, slack: {escape('; '.join(parts))}"] if len(parts) > 1 else []


def verdict(data: dict[str, Any]) -> str:
    """Return the outcome of a method's evidence in a word or two."""
    if data["evidence"] is None:
        return "none yet"
    return "reproduced" if data["evidence"]["reproduced"] else "not reproduced"


def _modules() -> list[str]:
    root = str(Path(thresher.__file__).parent)
    names = [module.name for module in pkgutil.walk_packages([root], "thresher.")]
    public = [name for name in names if not any(p.startswith("_") for p in name.split("."))]
    return sorted(name for name in public if not name.startswith(_NOT_API))


def _module_page(name: str) -> str:
    module = importlib.import_module(name)
    # A package hands on names that are documented where they are defined.
    options = [] if hasattr(module, "__path__") else ["members:", "special-members: __call__"]
    return "\n".join([_title(name), _directive("automodule", name, options=options)])


def _public_names() -> str:
    rows = []
    for name in thresher.__all__:
        value = getattr(thresher, name)
        if inspect.ismodule(value):
            target = f":mod:`{value.__name__}`"
        else:
            target = f":obj:`{value.__module__}.{value.__qualname__}`"
        rows.append([f"``thresher.{name}``", target])
    return _table(["name", "documented at"], rows)


def _title(text: str, underline: str = "=") -> str:
    return f"{escape(text)}\n{underline * (len(escape(text)) + 1)}\n"


def _directive(
    name: str,
    argument: str = "",
    *,
    options: list[str] | None = None,
    lines: list[str] | None = None,
) -> str:
    head = [f".. {name}:: {argument}".rstrip()]
    head += [f"   :{option}" for option in options or []]
    body = ["", *(f"   {line}".rstrip() for line in lines or [])]
    return "\n".join([*head, *body, ""])


def _table(columns: list[str], rows: list[list[str]]) -> str:
    lines = []
    for row in [columns, *rows]:
        lines += [f"{'*' if i == 0 else ' '} - {cell}" for i, cell in enumerate(row)]
    return _directive("list-table", options=["header-rows: 1"], lines=lines)


def _cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else escape(str(value))
