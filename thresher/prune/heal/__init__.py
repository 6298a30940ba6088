"""Recovering what pruning cost, with the zeros held in their places."""
