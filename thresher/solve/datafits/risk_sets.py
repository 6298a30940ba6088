"""Sums over intervals of times, in logarithms, for those who are at risk from an entry to an exit.

Differences of cumulative sums would lose what is small beside a risk that has left; here nothing is
subtracted. Every interval is the union of a few nodes of a binary tree over the times.
"""

from __future__ import annotations

__all__ = ["Intervals"]

import numpy as np


class Intervals:
    """Intervals of places, each a union of nodes of a binary tree.

    Parameters
    ----------
    first, last : array of int of shape (n,)
        Each covers the places from its first up to, not including, its last.
    size : int
        How many places there are.
    """

    def __init__(self, first: np.ndarray, last: np.ndarray, size: int) -> None:
        self.leaves = 1 << max(size - 1, 0).bit_length()
        self.size = size
        left, right = first + self.leaves, last + self.leaves
        members, nodes = [], []
        while np.any(left < right):
            for odd, node in ((left & 1, left), (right & 1, right - 1)):
                used = np.flatnonzero((odd == 1) & (left < right))
                members.append(used)
                nodes.append(node[used])
            left, right = (left + 1) >> 1, right >> 1
        self.members = np.concatenate(members) if members else np.empty(0, dtype=int)
        self.nodes = np.concatenate(nodes) if nodes else np.empty(0, dtype=int)

    def at_places(self, logs: np.ndarray) -> np.ndarray:
        """Return the log of the sum, at every place, over the intervals that cover it.

        Parameters
        ----------
        logs : array of shape (n,)
            Logarithm of what each interval adds.

        Returns
        -------
        array of shape (size,)
        """
        tree = np.full(2 * self.leaves, -np.inf)
        np.logaddexp.at(tree, self.nodes, logs[self.members])
        level = 1
        while level < self.leaves:  # from the root down, what covers a node covers its halves
            parents = np.repeat(tree[level : 2 * level], 2)
            tree[2 * level : 4 * level] = np.logaddexp(tree[2 * level : 4 * level], parents)
            level *= 2
        return tree[self.leaves : self.leaves + self.size]

    def of_members(self, logs: np.ndarray, count: int) -> np.ndarray:
        """Return the log of the sum, for every interval, over the places that it covers.

        Parameters
        ----------
        logs : array of shape (size,)
            Logarithm of what each place adds.
        count : int
            How many intervals there are.

        Returns
        -------
        array of shape (count,)
        """
        tree = np.full(2 * self.leaves, -np.inf)
        tree[self.leaves : self.leaves + self.size] = logs
        level = self.leaves // 2
        while level:
            halves = tree[2 * level : 4 * level].reshape(-1, 2)
            tree[level : 2 * level] = np.logaddexp(halves[:, 0], halves[:, 1])
            level //= 2
        total = np.full(count, -np.inf)
        np.logaddexp.at(total, self.members, tree[self.nodes])
        return total
