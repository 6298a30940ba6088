"""stub"""

from dataclasses import dataclass


@dataclass
class DiskOptions:
    dtype: object = None
    include: tuple = ()
    exclude: tuple = ()


def prune_folder(*a, **k):
    raise NotImplementedError


def peak_memory():
    return 0
