"""The shared parts that every method is made of.

The modules that need torch are imported by name (``thresher.core.scores``), so that
callers without torch can use :mod:`thresher.core.prox`, :mod:`thresher.core.top_k`
and :mod:`thresher.core.card`.
"""
