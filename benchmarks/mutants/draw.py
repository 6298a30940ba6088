"""Mutants at random places, by the operators of cosmic-ray."""

from __future__ import annotations

import ast
import random
from collections import defaultdict
from collections.abc import Sequence

from .trial import ROOT, Mutant

ROOMS = ("core", "parts", "solve", "run")
_TRIES = 50  # places of a file before another is drawn


def draw(count: int, seed: int, rooms: Sequence[str] = ROOMS) -> list[Mutant]:
    """Return different mutants of files drawn by their size."""
    rng = random.Random(seed)
    files = sorted(
        str(file.relative_to(ROOT))
        for room in rooms
        for file in (ROOT / "thresher" / room).rglob("*.py")
    )
    sizes = [(ROOT / file).stat().st_size for file in files]
    found: dict[tuple[str, str], Mutant] = {}
    while len(found) < count:
        mutant = _mutant(rng.choices(files, sizes)[0], rng)
        if mutant is not None:
            found[mutant.file, mutant.source] = mutant
    return list(found.values())


def _mutant(file: str, rng: random.Random) -> Mutant | None:
    """Return a mutant of a file at a random place, None if its places change nothing."""
    from cosmic_ray.mutating import mutate_code
    from cosmic_ray.plugins import get_operator

    source = (ROOT / file).read_text(encoding="utf-8")
    places = _places(source)
    for _ in range(_TRIES if places else 0):
        # A place first: one operation of arithmetic has a dozen mutants, a branch has one.
        place = rng.choice(sorted(places))
        name, occurrence = rng.choice(places[place])
        broken = mutate_code(source, get_operator(name)(), occurrence)
        if broken is not None and _code(broken) not in (None, _code(source)):
            line = place[0]
            text = broken.splitlines()[line - 1].strip()
            return Mutant(file, line, f"{name.partition('/')[2]}: {text}", broken)
    return None


def _places(source: str) -> dict[tuple[int, int], list[tuple[str, int]]]:
    """Return what can be done at every place: names of operators, and which occurrence it is."""
    from cosmic_ray.ast import ast_nodes, get_ast
    from cosmic_ray.plugins import get_operator, operator_names

    nodes = list(ast_nodes(get_ast(source)))
    places = defaultdict(list)
    for name in operator_names():
        kind = get_operator(name)
        if kind.arguments():
            continue
        operator, occurrence = kind(), 0
        for node in nodes:
            for start, _ in operator.mutation_positions(node):
                places[start].append((name, occurrence))
                occurrence += 1
    return places


class _Bare(ast.NodeTransformer):
    """Takes off annotations, which nothing evaluates."""

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        self.generic_visit(node)
        node.annotation = ast.Constant(None)
        return node

    def visit_arg(self, node: ast.arg) -> ast.AST:
        node.annotation = None
        return node

    def _function(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> ast.AST:
        self.generic_visit(node)
        node.returns = None
        return node

    visit_FunctionDef = visit_AsyncFunctionDef = _function


def _code(source: str) -> str | None:
    """Return what a module does, as text; None if it does not compile."""
    try:
        return ast.dump(_Bare().visit(ast.parse(source)))
    except (SyntaxError, ValueError):
        return None
