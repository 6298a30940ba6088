"""Blocks whose variables depend on each other as in a forest: chosen and solved in linear time."""

from __future__ import annotations

__all__ = ["forest_block", "forest_partition", "forest_solve"]

import numpy as np
from scipy import sparse

from ...core.errors import DataError


def forest_block(order: np.ndarray, graph: sparse.csr_array) -> np.ndarray:
    """Take variables in a given order, leaving out those that would close a cycle.

    Parameters
    ----------
    order : array of int
        Variables, the most wanted first.
    graph : csr_array of shape (p, p)
        Symmetric; off-diagonal entries say which variables depend on each other.

    Returns
    -------
    array of int
        The variables taken, ascending. The graph between them is a forest.

    References
    ----------
    Nutini, Laradji and Schmidt, Let's make block coordinate descent converge faster (2017),
    on greedy forest-structured blocks.
    """
    starts, neighbours = graph.indptr.tolist(), graph.indices.tolist()
    root = [-1] * graph.shape[0]  # of the tree that a taken variable is in; -1 if not taken

    def find(node: int) -> int:
        while root[node] != node:
            root[node] = node = root[root[node]]
        return node

    for node in order.tolist():
        taken = [
            k for k in neighbours[starts[node] : starts[node + 1]] if root[k] >= 0 and k != node
        ]
        trees = {find(k) for k in taken}
        if len(trees) == len(taken):  # a tree that is met twice would close a cycle
            root[node] = node
            for tree in trees:
                root[tree] = node
    return np.flatnonzero(np.array(root) >= 0)


def forest_partition(graph: sparse.csr_array) -> list[np.ndarray]:
    """Split all variables into blocks that are forests, each as large as greed makes it.

    Parameters
    ----------
    graph : csr_array of shape (p, p)
        Symmetric; off-diagonal entries say which variables depend on each other.

    Returns
    -------
    list of arrays of int
        Disjoint blocks, ascending within.
    """
    rest, blocks = np.arange(graph.shape[0]), []
    while len(rest):
        blocks.append(forest_block(rest, graph))
        rest = np.setdiff1d(rest, blocks[-1], assume_unique=True)
    return blocks


def forest_solve(matrix: sparse.csr_array, target: np.ndarray) -> np.ndarray:
    """Solve ``matrix @ x = target`` for a matrix whose graph is a forest, by message passing.

    Messages go from the leaves to the roots, each eliminating one variable, and the solution
    goes back down. Nothing is filled in, so that the time is linear in the number of variables.

    Parameters
    ----------
    matrix : csr_array of shape (n, n)
        Symmetric and positive definite.
    target : array of shape (n,)
        Right-hand side.

    Returns
    -------
    array of shape (n,)
        The solution.

    Raises
    ------
    DataError
        If the graph of the matrix has a cycle.

    References
    ----------
    Nutini, Laradji and Schmidt, Let's make block coordinate descent converge faster (2017),
    on message passing; Gaussian belief propagation is exact on trees (Shental, Siegel, Wolf,
    Bickson and Dolev, Gaussian belief propagation solver for systems of linear equations, 2008).
    """
    order, parent, link = _rooted(matrix)
    pivot, message = matrix.diagonal().tolist(), target.astype(float).tolist()
    for node in reversed(order):
        above = parent[node]
        if above >= 0:
            share = link[node] / pivot[node]
            pivot[above] -= share * link[node]
            message[above] -= share * message[node]
    solution = [0.0] * len(order)
    for node in order:
        above = parent[node]
        told = link[node] * solution[above] if above >= 0 else 0.0
        solution[node] = (message[node] - told) / pivot[node]
    return np.array(solution)


def _rooted(matrix: sparse.csr_array) -> tuple[list[int], list[int], list[float]]:
    """Return variables with parents before children, each one's parent, and the entry between."""
    starts, columns = matrix.indptr.tolist(), matrix.indices.tolist()
    entries, size = matrix.data.tolist(), matrix.shape[0]
    order: list[int] = []
    parent, link, seen = [-1] * size, [0.0] * size, [False] * size
    for root in range(size):
        if seen[root]:
            continue
        seen[root] = True
        waiting = [root]
        while waiting:
            node = waiting.pop()
            order.append(node)
            for place in range(starts[node], starts[node + 1]):
                other = columns[place]
                if other == node or other == parent[node] or entries[place] == 0:
                    continue
                if seen[other]:
                    raise DataError(
                        f"the graph of the matrix has a cycle through variable {other}; leave "
                        "variables out until it is a forest, as forest_block does"
                    )
                seen[other] = True
                parent[other], link[other] = node, entries[place]
                waiting.append(other)
    return order, parent, link
