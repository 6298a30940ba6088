"""Which layout each packed weight of a checkpoint is stored in, and reading it back."""

from __future__ import annotations

__all__ = ["StoredWeights", "describe_layouts", "record_layouts"]

import bisect
import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import nn

from ...core.errors import CheckpointError, LayerError, OptionError
from ..layouts import formats
from ..layouts.base import Layout
from ..layouts.buffers import Outline, outlines
from ..layouts.convolution import as_weight
from ..packed.layer import PackedLayer
from .listed import Listed, check_group, listed_weights


class StoredWeights:
    """How the packed weights of a checkpoint are stored, as its configuration says.

    Weights that the configuration does not name are bitmasks or N:M positions, which their
    tensors show. What the configuration and the headers of files say is checked here, for every
    reader, before a weight is read.

    Parameters
    ----------
    group : int, optional
        M of the N:M weights that are not named.
    layouts : list of dict, optional
        Groups of weights, see :func:`describe_layouts`.
    sparse : bool, default True
        Whether the configuration is that of a sparse checkpoint. In others no weight is packed,
        and a tensor may be called anything.

    Raises
    ------
    CheckpointError
        If `group` is no number of columns, or a group of weights lacks an entry.
    """

    def __init__(
        self, group: int | None = None, layouts: list[Any] | None = None, sparse: bool = True
    ) -> None:
        check_group(group)
        self.group = group
        self.sparse = sparse
        self._named = listed_weights(layouts)
        # A model may name a weight with or without its base's name.
        self._inside: dict[str, str] = {}
        for name in self._named:
            if "." in name:
                self._inside.setdefault(name.partition(".")[2], name)

    def is_named(self, name: str) -> bool:
        """Return whether the configuration names the layout of a weight."""
        return self._find(name) is not None

    def parts(self, held: Collection[str]) -> dict[str, list[str]]:
        """Return the tensors of every packed weight, by its name.

        Parameters
        ----------
        held : collection of str
            Names of all stored tensors.

        Raises
        ------
        CheckpointError
            If a weight lacks one of its tensors, or is surrounded by others that no layout has.
        """
        if not self.sparse:
            return {}
        found: dict[str, set[str]] = {}
        for name, suffix in (*self._named_like_listed(held), *_named_like_packed(held)):
            found.setdefault(name, set()).add(suffix)
        whole = {name: self._whole(name, parts, held) for name, parts in found.items()}
        packed = {name: parts for name, parts in whole.items() if parts}
        self._check_surplus(packed, held)
        return packed

    def layout_of(self, name: str) -> type[Layout] | None:
        """Return the layout that the configuration names for a weight, None for no or unknown."""
        stored = self._find(name)
        return None if stored is None else Layout.known().get(stored.layout)

    def check(self, name: str, shape: tuple[int, ...], found: Mapping[str, Outline]) -> None:
        """Raise unless tensors of these outlines can be a packed weight of this shape.

        Parameters
        ----------
        name : str
            Name of the weight.
        shape : tuple of int
            What :func:`thresher.run.layouts.formats.shape_of` returned.
        found : mapping of str to Outline
            Its tensors by suffix, such as ``"_values"``, without the shape.

        Raises
        ------
        CheckpointError
            Naming the weight, and what is wrong with it.
        """
        self._checked(name, shape, {suffix[1:]: outline for suffix, outline in found.items()})

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
        shape = formats.shape_of(name, tensors.pop("shape", None))
        kind, stored = self._checked(name, shape, outlines(tensors))
        try:
            return kind.from_tensors(tensors, _matrix_of(shape), stored.settings)
        except (LayerError, CheckpointError) as error:
            raise self._unreadable(name, tensors, error) from error
        except (TypeError, ValueError, KeyError, IndexError, RuntimeError) as error:
            # A layout of a user's own that does not check what it is given.
            raise self._unreadable(name, tensors, error) from error

    def dense(
        self, name: str, parts: Mapping[str, torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the dense weight and its support; parameters and errors as for `matrix`."""
        shape = formats.shape_of(name, parts.get("_shape"))
        stored = self._find(name)
        if stored is None or stored.layout in ("bitmask", "n:m"):
            if stored is not None:
                self.check(name, shape, outlines({s: t for s, t in parts.items() if s != "_shape"}))
            m = self.group if stored is None else stored.settings.get("m")
            weight, mask = formats.unpack(dict(parts), name, m)
            if stored is None or len(shape) != 4:
                return weight, mask
            return _as_stored(weight, shape), _as_stored(mask, shape)
        weight = _as_stored(self.matrix(name, parts).to_dense(), shape)
        return weight, weight != 0

    def outline(self, name: str, shape: tuple[int, ...], found: Mapping[str, Outline]) -> Outline:
        """Return shape and type of a dense weight; parameters and errors as for `check`."""
        self.check(name, shape, found)
        dtypes = [outline.dtype for outline in found.values() if outline.dtype.is_floating_point]
        if not dtypes:
            raise CheckpointError(
                f"packed weight {name!r} has no tensor of floating point among {sorted(found)}; "
                "the file is corrupted, fetch or write it again"
            )
        return Outline(shape, dtypes[0])

    def _find(self, name: str) -> Listed | None:
        """Return how a weight is stored; a model may name it with or without its base's name."""
        if name in self._named:
            return self._named[name]
        without = self._named.get(name.partition(".")[2])
        return without or self._named.get(self._inside.get(name, ""))

    def _whole(self, name: str, found: set[str], held: Collection[str]) -> list[str]:
        """Return the tensors of a weight, none if those found are not of a packed one."""
        stored = self._find(name)
        if stored is not None:
            wanted = {"_shape", *(f"_{tensor}" for tensor in stored.tensors)}
        else:
            support = "_indices" if "_indices" in found and "_bitmask" not in found else "_bitmask"
            wanted = {"_values", "_shape", support}
        # Of a listed weight that is tied to another one, which is stored, the shape is left.
        if len(found) < 2 and (stored is None or found == {"_shape"} or not wanted & found):
            return []
        if missing := sorted(wanted - found):
            raise CheckpointError(
                f"packed weight {name!r} has tensors {sorted(name + s for s in found)} and no "
                f"{name + missing[0]!r}; the file is corrupted, fetch or write it again"
            )
        if surplus := sorted(found - wanted):
            raise CheckpointError(
                f"packed weight {name!r} has {name + surplus[0]!r} besides all of its tensors; the "
                "file is corrupted, fetch or write it again"
            )
        if name in held:
            raise CheckpointError(
                f"{name!r} is stored both packed and as it is; write the folder again"
            )
        return [name + suffix for suffix in sorted(wanted)]

    def _check_surplus(self, packed: Mapping[str, list[str]], held: Collection[str]) -> None:
        """Raise if a tensor is called as one of a listed weight, and is none."""
        names = sorted(held)
        for name in packed:
            if not self.is_named(name):
                continue
            at = bisect.bisect_left(names, f"{name}_")
            while at < len(names) and names[at] in packed[name]:
                at += 1
            if at < len(names) and names[at].startswith(f"{name}_"):
                surplus = names[at]
                raise CheckpointError(
                    f"tensor {surplus!r} is called as one of packed weight {name!r}, whose layout "
                    "does not have it; the file is corrupted, fetch or write it again"
                )

    def _named_like_listed(self, held: Collection[str]) -> Iterator[tuple[str, str]]:
        """Yield name and suffix of each tensor that is called as one of a listed weight."""
        inside: dict[str, list[str]] = {}
        for tensor in held:
            inside.setdefault(tensor.partition(".")[2], []).append(tensor)
        for listed, stored in self._named.items():
            for suffix in ("_shape", *(f"_{tensor}" for tensor in stored.tensors)):
                without = listed.partition(".")[2] + suffix
                for tensor in (listed + suffix, without, *inside.get(listed + suffix, ())):
                    name = tensor.removesuffix(suffix)
                    if tensor in held and self._find(name) is stored:
                        yield name, suffix

    def _checked(
        self, name: str, shape: tuple[int, ...], found: Mapping[str, Outline]
    ) -> tuple[type[Layout], Listed]:
        rows, columns = _matrix_of(shape)
        stored = self._find(name) or self._unnamed(found, rows, columns, name)
        try:
            kind = Layout.named(stored.layout)
            kind.check(found, (rows, columns), stored.settings)
        except OptionError as error:
            raise CheckpointError(
                f"weight {name!r} is stored in a layout that is not here: {error}. If it is your "
                "own, import the file that defines it first"
            ) from error
        except LayerError as error:
            raise self._unreadable(name, found, error) from error
        return kind, stored

    def _unreadable(self, name: str, found: Iterable[str], error: Exception) -> CheckpointError:
        return CheckpointError(
            f"packed weight {name!r} (tensors {', '.join(sorted(f'{name}_{t}' for t in found))}) "
            f"cannot be read: {error}; the file is corrupted, fetch or write it again"
        )

    def _unnamed(self, found: Mapping[str, Outline], rows: int, columns: int, name: str) -> Listed:
        if "bitmask" in found:
            return Listed("bitmask", {}, ("bitmask", "values"))
        if "values" not in found or "indices" not in found:
            raise CheckpointError(f"packed weight {name!r} is incomplete: it has {sorted(found)}")
        n = formats.kept_per_group(found["values"].shape, rows, columns, self.group, name)
        return Listed("n:m", {"n": n, "m": self.group or 1}, ("indices", "values"))


def _named_like_packed(held: Collection[str]) -> Iterator[tuple[str, str]]:
    """Yield name and suffix of each tensor that is called as one of a packed weight."""
    for tensor in held:
        for suffix in formats.suffixes:
            if tensor.endswith(suffix) and tensor != suffix:
                yield tensor.removesuffix(suffix), suffix


def _matrix_of(shape: tuple[int, ...]) -> tuple[int, int]:
    return shape[0], math.prod(shape[1:])


def _as_stored(matrix: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """Return the matrix of a listed weight as the weight: convolutions have another order."""
    if len(shape) != 4 or 0 in shape:
        return matrix.reshape(shape)
    return as_weight(matrix.reshape(shape[0], -1), (shape[2], shape[3]))


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
