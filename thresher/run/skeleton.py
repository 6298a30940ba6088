"""A Hugging Face model without weights, filled from disk one module at a time."""

from __future__ import annotations

__all__ = ["IncompleteError", "Skeleton", "check_complete"]

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..core.errors import CheckpointError
from ..parts.groups.sizes import cut, sizes_of
from .files.activations import ACTIVATIONS_FILE, has_activations, load_activations
from .files.checkpoint import Checkpoint, Shards
from .files.names import Names, StoredGroup


class Skeleton:
    """A model on the meta device whose modules are loaded when they are needed.

    Stored tensors become parameters through the conversions of transformers, see
    :class:`~thresher.run.files.names.Names`, and go back the same way.

    Parameters
    ----------
    folder : Path
        A Hugging Face model folder with safetensors.
    dtype : torch.dtype, optional
        Convert floating weights on loading; by default they stay as stored.

    Attributes
    ----------
    model : nn.Module
        In evaluation mode; parameters without data until loaded. It drops the activations that
        the folder's does.
    checkpoint : Checkpoint
        Where the weights are.

    Raises
    ------
    CheckpointError
        If the folder has no usable configuration, its weights are quantised in a way that is
        not read here, or they do not fit the architecture: one is missing or of another shape.
    """

    def __init__(self, folder: Path, dtype: torch.dtype | None = None) -> None:
        _refuse_adapter(folder)
        self.checkpoint = Checkpoint(folder)
        self.dtype = dtype
        self.model = build_model(folder)
        self._sources: list[Shards] = [self.checkpoint]
        self._given: set[str] = set()
        with self.checkpoint.opened():
            held = {name: self.checkpoint.outline(name) for name in self.checkpoint}
        sizes = sizes_of(self.model.config)
        if sizes is not None:
            cut(self.model, {name: each.shape for name, each in held.items()}, sizes)
        self.names = Names(self.model, held)
        self.checkpoint.confirm(held.keys() - set(self.names.surplus))
        self._part_what_differs()
        self._twins = _tied(self.model)
        self._check_nothing_missing()
        if has_activations(folder):
            load_activations(self.model, folder / ACTIVATIONS_FILE)

    @contextmanager
    def loaded(self, module: nn.Module, prefix: str) -> Iterator[None]:
        """Give a module its weights while the context lasts.

        Parameters
        ----------
        module : nn.Module
            Part of :attr:`model`.
        prefix : str
            Its path in the model.
        """
        self.load(module, prefix)
        try:
            yield
        finally:
            # Buffers stay: those that no file holds were computed and could not be loaded again.
            for owner, leaf, parameter in _parameters(module):
                owner._parameters[leaf] = _without_data(parameter)

    def load(self, module: nn.Module, prefix: str) -> None:
        """Give a module its weights, and the buffers that the folder holds.

        Raises
        ------
        CheckpointError
            If they cannot be converted without those of other modules.
        """
        wanted: dict[str, list[tuple[nn.Module, str]]] = {}
        for owner, leaf, full in _places(module, prefix):
            stored = self._stored_as(full)
            if stored is not None:
                wanted.setdefault(stored, []).append((owner, leaf))
        groups = {id(g): g for g in (self.names.groups[name] for name in wanted)}
        with ExitStack() as stack:
            for source in self._sources:
                stack.enter_context(source.opened())
            for group in groups.values():
                values = self._read(group)
                for name in group.parameters:
                    for owner, leaf in wanted.get(name, ()):
                        _assign(owner, leaf, values[name])

    def outgoing(
        self, prefix: str, masks: Mapping[str, Tensor], *, last: bool = True
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return what a module would write, as the folder stores it.

        Parameters
        ----------
        prefix : str
            Path of a module that is loaded. ``""`` stands for all that was neither returned
            before nor lies in an overlay, loaded or not: embeddings, norms, the head, and
            tensors that the model does not use.
        masks : mapping of str to Tensor
            Supports by full name of the parameter, of its shape.
        last : bool, default True
            Whether the tensors count as returned; otherwise they may be asked for again.

        Returns
        -------
        tensors, masks : dict of str to Tensor
            By stored name. Weights that the folder stores packed keep their support where
            `masks` has no other.

        Raises
        ------
        CheckpointError
            If stored tensors of this module belong to others too.
        """
        tensors: dict[str, Tensor] = {}
        supports: dict[str, Tensor] = {}
        for group in self._groups_under(prefix):
            known = {n: masks[a] for n in group.parameters for a in self._aliases(n) if a in masks}
            # What was not changed is as it was stored, though it may be held in another dtype.
            values = self._values(group) if known else self._read(group)
            tensors |= self.names.backward(group, values)
            if known:
                whole = {
                    n: known[n] if n in known else torch.ones_like(v, dtype=torch.bool)
                    for n, v in values.items()
                }
                supports |= self.names.backward(group, whole)
        if not prefix:
            left = [n for n in self.names.surplus if n not in self._given]
            tensors |= {name: self.cast(self.checkpoint.tensor(name)) for name in left}
        for name in tensors.keys() - supports.keys():
            if self.checkpoint.is_packed(name):
                _, mask = self.checkpoint.tensor_and_mask(name)
                assert mask is not None
                supports[name] = mask
        if last:
            self._given |= tensors.keys()
        return tensors, supports

    def overlay(self, written: Path) -> None:
        """Let weights that were written already take the place of the folder's.

        Parameters
        ----------
        written : Path
            A shard of :class:`~thresher.run.files.writer.CheckpointWriter`, or the folder that it
            writes to. Modules that are loaded from now on get the weights that are there.
        """
        shards = Shards.in_folder(written)
        self._sources.insert(0, shards)
        self._given |= set(shards)

    @contextmanager
    def without_overlays(self) -> Iterator[None]:
        """Load from the folder itself while the context lasts."""
        before, self._sources = self._sources, [self.checkpoint]
        try:
            yield
        finally:
            self._sources = before

    def cast(self, tensor: Tensor) -> Tensor:
        """Convert a floating tensor to the asked dtype.

        Raises
        ------
        CheckpointError
            If the dtype cannot hold its values.
        """
        if self.dtype is None or not tensor.is_floating_point():
            return tensor
        cast = tensor.to(self.dtype)
        # The range of bfloat16 is that of float32.
        if self.dtype == torch.float16 and not tensor.is_meta:
            beyond = int((cast.isinf() & tensor.isfinite()).sum())
            if beyond:
                raise CheckpointError(
                    f"{beyond} values of a tensor of {tuple(tensor.shape)} in "
                    f"{str(self.checkpoint.folder)!r} are beyond the largest that {self.dtype} "
                    f"holds, {torch.finfo(self.dtype).max:g}; convert to bfloat16 instead"
                )
        return cast

    def stored_dtype(self, parameter: str) -> torch.dtype:
        """Return the dtype that a parameter's tensors have on disk, after :meth:`cast`."""
        with self.checkpoint.opened():
            name = next(iter(self.names.groups[parameter].stored))
            return self.cast(self.checkpoint.outline(name)).dtype

    def _read(self, group: StoredGroup) -> dict[str, Tensor]:
        """Return the parameters that a group's tensors become, from disk."""
        self.names.prove_reversible(group)
        stored = {}
        for name in group.stored:
            source = next(source for source in self._sources if name in source)
            stored[name] = self.cast(source.tensor(name))
        return self.names.forward(group, stored)

    def _values(self, group: StoredGroup) -> dict[str, Tensor]:
        """Return a group's parameters as they are in the model, or on disk if not loaded."""
        held = {name: _value(self.model, name) for name in group.parameters}
        return self._read(group) if any(v.is_meta for v in held.values()) else held

    def _groups_under(self, prefix: str) -> Iterable[StoredGroup]:
        """Return the groups of a module, or with no prefix those that are left."""
        groups = {id(g): g for g in self.names.groups.values()}.values()
        if not prefix:
            return [g for g in groups if not g.stored.keys() & self._given]
        found = []
        for group in groups:
            if group.stored.keys() & self._given:
                continue
            inside = [
                any(f"{alias}.".startswith(f"{prefix}.") for alias in self._aliases(name))
                for name in group.parameters
            ]
            if any(inside) and not all(inside):
                raise CheckpointError(
                    f"the stored tensor {next(iter(group.stored))!r} becomes "
                    f"{group.parameters}, not all of which lie in {prefix!r}; prune the model "
                    "in memory with thresher.prune(model, ...)"
                )
            if all(inside):
                found.append(group)
        return found

    def _stored_as(self, name: str) -> str | None:
        """Return the name that a parameter or buffer is stored for: its own or a tied one's."""
        return next((each for each in self._aliases(name) if each in self.names.groups), None)

    def _aliases(self, name: str) -> tuple[str, ...]:
        """Return every name of a parameter or buffer, the given one first."""
        return (name, *self._twins.get(name, ()))

    def _part_what_differs(self) -> None:
        """Untie parameters that the folder holds different tensors for, as transformers does."""
        apart: set[str] = set()
        for name, others in _tied(self.model).items():
            for other in others:
                both = {name, other}
                if both <= self.names.groups.keys() and not both & apart and self._differ(*both):
                    apart.add(other)
        for name in apart:
            path, _, leaf = name.rpartition(".")
            owner = self.model.get_submodule(path)
            owner._parameters[leaf] = _without_data(owner.get_parameter(leaf))

    def _differ(self, name: str, other: str) -> bool:
        groups = (self.names.groups[each] for each in (name, other))
        held = [[self.checkpoint.tensor(each) for each in sorted(group.stored)] for group in groups]
        return len(held[0]) != len(held[1]) or not all(map(torch.equal, *held))

    def _check_nothing_missing(self) -> None:
        names = [name for name, _ in self.model.named_parameters(remove_duplicate=False)]
        missing = [name for name in names if self._stored_as(name) is None]
        if missing:
            ignored = getattr(self.model, "_keys_to_ignore_on_load_missing", None) or ()
            raise IncompleteError(
                f"{str(self.checkpoint.folder)!r} has no tensor for {missing[0]!r} (and "
                f"{len(missing) - 1} more parameters) of {type(self.model).__name__}; fetch or "
                "write the model again, or prune it in memory with thresher.prune(model, ...)",
                all(any(re.search(each, name) for each in ignored) for name in missing),
            )


class IncompleteError(CheckpointError):
    """A folder lacks weights of its model.

    Parameters
    ----------
    message : str
    optional : bool
        Whether its architecture does without all of them.
    """

    def __init__(self, message: str, optional: bool) -> None:
        super().__init__(message)
        self.optional = optional


def check_complete(folder: Path) -> None:
    """Raise if a folder lacks weights of its model.

    Nothing is raised of what cannot be told, as of models that this transformers does not have.

    Raises
    ------
    IncompleteError
        Naming one.
    """
    try:
        Skeleton(folder)
    except IncompleteError as error:
        if not error.optional:
            raise
    except CheckpointError:
        return


def _refuse_adapter(folder: Path) -> None:
    """Raise if transformers would add an adapter to the folder's model."""
    if (folder / "adapter_config.json").is_file():
        raise CheckpointError(
            f"{str(folder)!r} has an adapter beside its model (adapter_config.json), which "
            "from_pretrained adds to it and pruning from disk would not see; merge it "
            "(merge_and_unload) and save the model, or move the adapter's files away"
        )


def build_model(folder: Path) -> nn.Module:
    """Return the model that a folder's configuration describes, its parameters without data.

    Raises
    ------
    CheckpointError
        If the configuration cannot be used.
    """
    import transformers
    from accelerate import init_empty_weights

    try:
        config = transformers.AutoConfig.from_pretrained(folder)
    except Exception as error:  # whatever a damaged file makes the model's own class raise
        raise CheckpointError(f"{str(folder)!r} has no usable config.json: {error}") from error
    architectures = getattr(config, "architectures", None) or []
    kind = getattr(transformers, architectures[0], None) if architectures else None
    if kind is None:
        raise CheckpointError(
            f"config.json of {str(folder)!r} names architecture {architectures}, which this "
            "transformers does not have; install the version that made the model"
        )
    # How the weights are stored is read by us here, not by the loader in transformers.
    for part in (config, config.get_text_config()):
        if hasattr(part, "quantization_config"):
            del part.quantization_config
    # Buffers such as rotary frequencies are computed, not stored, so they must be real.
    with init_empty_weights(include_buffers=False):
        model = _built(kind, config, folder)
    model.tie_weights()  # type: ignore[operator]
    return model.eval()


def _built(kind: type[nn.Module], config: Any, folder: Path) -> nn.Module:
    try:
        return kind(config)
    except Exception as error:  # whatever sizes that do not fit make the model raise
        raise CheckpointError(
            f"config.json of {str(folder)!r} describes no {kind.__name__}: {error}; fetch the "
            "model again"
        ) from error


def _tied(model: nn.Module) -> dict[str, list[str]]:
    """Return the other names of every parameter that has several."""
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    several = [group for group in names.values() if len(group) > 1]
    return {name: [n for n in group if n != name] for group in several for name in group}


def _places(module: nn.Module, prefix: str) -> Iterator[tuple[nn.Module, str, str]]:
    """Yield owner, leaf and full name of what a module needs: parameters and buffers."""
    for path, owner in module.named_modules(prefix=prefix, remove_duplicate=False):
        needed = {n: p for n, p in owner._parameters.items() if p is not None and p.is_meta}
        for leaf in (*needed, *owner._buffers):
            yield owner, leaf, f"{path}.{leaf}".strip(".")


def _parameters(module: nn.Module) -> Iterator[tuple[nn.Module, str, nn.Parameter]]:
    for owner in module.modules():
        for leaf, parameter in list(owner._parameters.items()):
            if parameter is not None:
                yield owner, leaf, parameter


def _without_data(parameter: nn.Parameter) -> nn.Parameter:
    return nn.Parameter(torch.empty_like(parameter, device="meta"), requires_grad=False)


def _value(model: nn.Module, name: str) -> Tensor:
    path, _, leaf = name.rpartition(".")
    value = getattr(model.get_submodule(path), leaf)
    assert isinstance(value, Tensor)
    return value.detach() if value.is_meta else value.detach().cpu()


def _assign(owner: nn.Module, leaf: str, value: Tensor) -> None:
    if leaf in owner._buffers:
        # A copy: what a module changes in place must not be the file's.
        owner._buffers[leaf] = value.clone()
    else:
        owner._parameters[leaf] = nn.Parameter(value, requires_grad=False)
