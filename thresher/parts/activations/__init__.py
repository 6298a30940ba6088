"""Activation sparsity: which inputs of a layer matter for this token, and the levels asked.

A *selection* (``selection.py``) is a small module that sets the entries of a tensor to zero that do
not matter for this token. It is *attached* (``attached.py``) to a layer, whose own state keeps its
names, so that a model without its selections is the dense model. Where they go is a *site*
(``sites.py``); what an entry is worth besides its magnitude is an *importance* (``importance.py``).
"""
