"""Which layout each packed weight of a checkpoint is stored in, and reading it back."""

from __future__ import annotations

__all__ = ["StoredWeights", "describe_layouts", "record_layouts"]

import math
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ...core.errors import CheckpointError, LayerError, OptionError
from ..layouts import formats
from ..layouts.base import Layout
from ..layouts.convolution import as_weight
from ..packed.layer import PackedLayer


@dataclass(frozen=True)
class _Stored:
    """One weight: the name of its layout, the settings and the names of the buffers."""

    layout: str
    settings: Mapping[str, int]
    tensors: tuple[str, ...]


class StoredWeights:
    """How the packed weights of a checkpoint are stored, as its configuration says.

    Weights that the configuration does not name are bitmasks or N:M positions, which their
    tensors show.

    Parameters
    ----------
    group : int, optional
        M of the N:M weights that are not named.
    layouts : iterable of dict, optional
        Groups of weights, see :func:`describe_layouts`.

    Raises
    ------
    CheckpointError
        If a group lacks an entry.
    """

    def __init__(self, group: int | None = None, layouts: Iterable[Any] | None = None) -> None:
        self.group = group
        self._named: dict[str, _Stored] = {}
        for entry in layouts or ():
            try:
                settings = {key: int(value) for key, value in entry["settings"].items()}
                stored = _Stored(entry["layout"], settings, tuple(entry["tensors"]))
                self._named |= dict.fromkeys(entry["weights"], stored)
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                raise CheckpointError(
                    f"entry {entry!r} of 'layouts' in the configuration is damaged: it needs "
                    "layout, settings, tensors and weights"
                ) from error

    def is_named(self, name: str) -> bool:
        """Return whether the configuration names the layout of a weight."""
        return self._find(name) is not None

    def parts_of(self, name: str, held: Container[str]) -> list[str]:
        """Return the names of the tensors of weight `name`, of those that are `held`."""
        stored = self._find(name)
        suffixes: tuple[str, ...] = formats.suffixes
        if stored is not None:
            suffixes = ("_shape", *(f"_{tensor}" for tensor in stored.tensors))
        return [name + suffix for suffix in suffixes if name + suffix in held]

    def layout_of(self, name: str) -> type[Layout] | None:
        """Return the layout that the configuration names for a weight, None for no or unknown."""
        stored = self._find(name)
        return None if stored is None else Layout.known().get(stored.layout)

    def matrix(self, name: str, parts: Mapping[str, torch.Tensor]) -> Layout:
        """Bind the stored tensors of a weight, without passing through a dense one.

        Parameters
        ----------
        name : str
            Name of the weight.
        parts : mapping of str to Tensor
            Its tensors by suffix, such as ``"_values"``.

        Raises
        ------
        CheckpointError
            If they are incomplete or damaged; the message names the weight and the tensor.
        """
        tensors = {suffix[1:]: tensor for suffix, tensor in parts.items()}
        shape = _shape_of(name, tensors.pop("shape", None))
        rows, columns = shape[0], math.prod(shape[1:])
        stored = self._find(name) or self._unnamed(tensors, rows, columns, name)
        try:
            kind = Layout.named(stored.layout)
            return kind.from_tensors(tensors, (rows, columns), stored.settings)
        except OptionError as error:
            raise CheckpointError(
                f"weight {name!r} is stored in a layout that is not here: {error}. If it is your "
                "own, import the file that defines it first"
            ) from error
        except LayerError as error:
            raise CheckpointError(
                f"packed weight {name!r} (tensors {', '.join(sorted(name + s for s in parts))}) "
                f"cannot be read: {error}; the file is corrupted, fetch or write it again"
            ) from error

    def dense(
        self, name: str, parts: Mapping[str, torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the dense weight and its support; parameters and errors as for `matrix`."""
        stored = self._find(name)
        if stored is None or stored.layout in ("bitmask", "n:m"):
            m = self.group if stored is None else stored.settings.get("m")
            return formats.unpack(dict(parts), name, m)
        shape = _shape_of(name, parts.get("_shape"))
        weight = self.matrix(name, parts).to_dense()
        if len(shape) == 4:
            weight = as_weight(weight, (shape[2], shape[3]))
        return weight, weight != 0

    def outline(self, name: str, parts: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Return a dense weight without data; parameters and errors as for `matrix`."""
        shape = _shape_of(name, parts.get("_shape"))
        dtypes = [part.dtype for part in parts.values() if part.is_floating_point()]
        if not dtypes:
            raise CheckpointError(f"packed weight {name!r} is incomplete: it has {sorted(parts)}")
        return torch.empty(shape, dtype=dtypes[0], device="meta")

    def _find(self, name: str) -> _Stored | None:
        """Return how a weight is stored; a model may name it with or without its base's name."""
        if name in self._named or not self._named:
            return self._named.get(name)
        _, _, without = name.partition(".")
        inside = (n for n in self._named if n.partition(".")[2] == name)
        return self._named.get(without) or self._named.get(next(inside, ""))

    def _unnamed(
        self, tensors: Mapping[str, torch.Tensor], rows: int, columns: int, name: str
    ) -> _Stored:
        if "bitmask" in tensors:
            return _Stored("bitmask", {}, ("bitmask", "values"))
        if "values" not in tensors or "indices" not in tensors:
            raise CheckpointError(f"packed weight {name!r} is incomplete: it has {sorted(tensors)}")
        n = formats.kept_per_group(tensors["values"], rows, columns, self.group, name)
        return _Stored("n:m", {"n": n, "m": int(self.group or 1)}, ("indices", "values"))


def _shape_of(name: str, tensor: torch.Tensor | None) -> tuple[int, ...]:
    """Return the shape of a dense weight from the tensor that holds it."""
    shape = [] if tensor is None else tensor.flatten().tolist()
    whole = tensor is not None and tensor.dim() == 1 and tensor.dtype == torch.int64
    if not whole or len(shape) < 2 or min(shape) < 0:
        raise CheckpointError(
            f"tensor '{name}_shape' is no shape of a weight: {shape}; the file is corrupted"
        )
    return tuple(shape)


def describe_layouts(model: nn.Module) -> list[dict[str, Any]]:
    """Return the layouts of a model's packed layers, as a checkpoint's configuration has them.

    Parameters
    ----------
    model : nn.Module
        With :class:`~thresher.run.packed.linear.PackedLinear` and
        :class:`~thresher.run.packed.conv.PackedConv2d` layers.

    Returns
    -------
    list of dict
        One for each layout and settings: ``layout``, ``settings``, ``tensors`` (names of the
        buffers) and ``weights`` (names of the weights stored so).
    """
    groups: dict[tuple, dict[str, Any]] = {}
    for name, module in model.named_modules():
        if not isinstance(module, PackedLayer):
            continue
        layout = module.layout
        settings, tensors = dict(layout.settings), sorted(layout.tensors())
        key = (layout.name, *sorted(settings.items()))
        group = {"layout": layout.name, "settings": settings, "tensors": tensors, "weights": []}
        groups.setdefault(key, group)["weights"].append(f"{name}.weight")
    return list(groups.values())


def record_layouts(model: nn.Module) -> None:
    """Note the layouts of a transformers model in its configuration.

    ``model.save_pretrained`` then writes a sparse checkpoint that is packed again when it is
    loaded. Other models are left alone.
    """
    config = getattr(model, "config", None)
    if hasattr(config, "to_json_string") and (layouts := describe_layouts(model)):
        config.quantization_config = {  # type: ignore[union-attr]
            "quant_method": "thresher",
            "format_version": formats.FORMAT_VERSION,
            "packed": True,
            "layouts": layouts,
        }
