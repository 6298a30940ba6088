"""Names in a folder and names in a model, and the conversions of transformers between them."""

from __future__ import annotations

__all__ = ["Names", "StoredGroup", "check_fit"]

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ...core.errors import CheckpointError


@dataclass
class StoredGroup:
    """Tensors of a folder that become parameters of a model together.

    Parameters
    ----------
    target : str
        The parameter or buffer that they become, or the first of several.
    converter : transformers WeightConverter, optional
        What merges or splits them; None where the one tensor is only renamed.
    stored : dict of str to str
        Names in the folder, and the pattern of the converter that each of them matched.
    parameters : tuple of str
        All that they become.
    """

    target: str
    converter: Any = None
    stored: dict[str, str] = field(default_factory=dict)
    parameters: tuple[str, ...] = ()


class Names:
    """Which stored tensors become which parameters and buffers of a model, in both directions.

    transformers renames, merges and splits tensors as it loads them: those of experts are
    stacked, for example. Its own mapping is asked here, never copied. That every tensor arrives,
    and in the right shape, is proven on tensors without data as this is made.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        May be without data (on the meta device).
    held : mapping of str to Tensor
        Tensors without data, of the shapes and types in the folder, by stored name.

    Attributes
    ----------
    groups : dict of str to StoredGroup
        By parameter or buffer of the model.
    surplus : list of str
        Stored names that become no parameter and no buffer.

    Raises
    ------
    CheckpointError
        If a tensor is of another shape than the model's, holds codes of another format, or cannot
        be converted by itself.
    """

    def __init__(self, model: nn.Module, held: Mapping[str, Tensor]) -> None:
        self.model = model
        self.groups: dict[str, StoredGroup] = {}
        self.surplus: list[str] = []
        self._held = held
        self._proven: set[str] = set()
        self._renamings, self._converters = _conversions(model)
        self._expected = model.state_dict()
        for group in self._collect():
            self._check(group)

    def of(self, parameter: str) -> StoredGroup | None:
        """Return what a parameter or buffer is made of, None if it is not stored."""
        return self.groups.get(parameter)

    def forward(self, group: StoredGroup, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the parameters that stored tensors become.

        Parameters
        ----------
        group : StoredGroup
            One of :attr:`groups`.
        tensors : mapping of str to Tensor
            All that it names, by stored name.

        Raises
        ------
        CheckpointError
            If transformers cannot convert them by themselves.
        """
        if group.converter is None:
            return {group.target: tensors[next(iter(group.stored))]}
        converter = copy.deepcopy(group.converter)
        for name, pattern in group.stored.items():
            converter.add_tensor(group.target, name, pattern, tensors[name])
        return self._converted(converter, group.target)

    def backward(self, group: StoredGroup, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the stored tensors that parameters came from; masks can be taken back likewise.

        Parameters
        ----------
        group : StoredGroup
            One of :attr:`groups`.
        parameters : mapping of str to Tensor
            All that the group becomes, by name in the model.

        Returns
        -------
        dict of str to Tensor
            By stored name.

        Raises
        ------
        CheckpointError
            If the conversion of transformers cannot be undone on these alone.
        """
        if group.converter is None:
            return {next(iter(group.stored)): parameters[group.target]}
        reverse = group.converter.reverse_transform()
        layer = ""
        for name in group.parameters:
            renamed, pattern = reverse.rename_source_key(name)
            if pattern is None:
                raise self._irreversible(group, f"nothing undoes {name!r}")
            layer = layer or renamed
            reverse.add_tensor(renamed, name, pattern, parameters[name])
        found = self._converted(reverse, layer)
        wanted = {self._before_conversion(name): name for name in group.stored}
        base = f"{getattr(self.model, 'base_model_prefix', '')}."
        stored = {}
        for name, tensor in found.items():
            options = (name, name.removeprefix(base), base + name)
            match = next((wanted[option] for option in options if option in wanted), None)
            if match is not None:
                stored[match] = tensor
        if stored.keys() != group.stored.keys() or len(found) != len(stored):
            raise self._irreversible(group, f"undone, it gives {sorted(found)[:3]}")
        return stored

    def prove_reversible(self, group: StoredGroup) -> None:
        """Raise CheckpointError unless a conversion there and back gives the same numbers.

        Each conversion is tried once, on random numbers in the place of the first tensors that
        it is asked for.
        """
        kind = repr(group.converter)
        if group.converter is None or kind in self._proven:
            return
        seeded = torch.Generator().manual_seed(0)
        before = {
            name: torch.randint(1, 100, self._held[name].shape, generator=seeded, dtype=torch.int8)
            .to(self._held[name].dtype)
            for name in group.stored
        }  # fmt: skip
        after = self.backward(group, self.forward(group, before))
        if any(not torch.equal(after[name], tensor) for name, tensor in before.items()):
            raise self._irreversible(group, "there and back, other numbers come out")
        self._proven.add(kind)

    def _collect(self) -> Iterator[StoredGroup]:
        """Find the groups as the loader of transformers does."""
        from transformers.core_model_loading import dot_natural_key, rename_source_key

        base = getattr(self.model, "base_model_prefix", "")
        by_pattern = {p: c for c in self._converters for p in c.source_patterns}
        groups: dict[str, StoredGroup] = {}
        for name in sorted(self._held, key=dot_natural_key):
            target, pattern = rename_source_key(
                name, self._renamings, self._converters, base, self._expected
            )
            if target not in self._expected and name in self._expected:
                target, pattern = name, None
            taken = pattern is None and target in groups
            if target not in self._expected or taken:
                self.surplus.append(name)
                continue
            converter = None if pattern is None else by_pattern[pattern]
            group = groups.setdefault(target, StoredGroup(target, converter))
            group.stored[name] = pattern or ""
        yield from groups.values()

    def _check(self, group: StoredGroup) -> None:
        """Run a conversion without data, note what it gives and compare the shapes."""
        made = self.forward(group, {name: self._held[name] for name in group.stored})
        group.parameters = tuple(made)
        first = next(iter(group.stored))
        for name, tensor in made.items():
            if name not in self._expected:
                raise self._irreversible(group, f"it gives {name!r}, which the model does not have")
            expected = self._expected[name]
            if tensor.shape != expected.shape:
                raise _misfit(first, tensor, name, expected)
            if expected.is_floating_point() and not _plain(tensor):
                raise CheckpointError(
                    f"{first!r} holds {tensor.dtype} where {type(self.model).__name__} has real "
                    "numbers: the folder is quantised in a way that its configuration does not "
                    "say; use the model's unquantised folder"
                )
            self.groups[name] = group

    def _before_conversion(self, name: str) -> str:
        from transformers.core_model_loading import rename_source_key

        renamed: str = rename_source_key(name, self._renamings, [])[0]
        return renamed

    def _converted(self, converter: Any, layer: str) -> dict[str, Tensor]:
        try:
            found = converter.convert(layer, model=self.model, config=self.model.config)
        except Exception as error:
            raise CheckpointError(
                f"transformers cannot convert the tensors of {layer!r} by themselves "
                f"({type(error).__name__}: {error}); prune the model in memory with "
                "thresher.prune(model, ...)"
            ) from error
        # Early versions return errors beside the tensors.
        found = found[0] if isinstance(found, tuple) else found
        return {n: t[0] if isinstance(t, list) else t for n, t in found.items()}

    def _irreversible(self, group: StoredGroup, why: str) -> CheckpointError:
        names = list(group.stored)
        return CheckpointError(
            f"the conversion of {names[0]!r} (and {len(names) - 1} more) to {group.target!r} "
            f"cannot be undone one block at a time: {why}; prune the model in memory with "
            "thresher.prune(model, ...)"
        )


def check_fit(model: nn.Module, held: Mapping[str, Tensor], exact: bool) -> None:
    """Raise unless stored weights have shapes that a model can take, before they are unpacked.

    A weight that is only renamed must have the shape of its parameter. Of one that is merged with
    others or split, whose conversion may not be possible by itself, it is only known that it has
    no more entries than the whole model.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        May be without data.
    held : mapping of str to Tensor
        Without data, by stored name.
    exact : bool
        False leaves weights of another shape to the loader, which can be told to ignore them.

    Raises
    ------
    CheckpointError
        Naming the weight.
    """
    from transformers.core_model_loading import rename_source_key

    renamings, converters = _conversions(model)
    base, expected = getattr(model, "base_model_prefix", ""), model.state_dict()
    entries = sum(tensor.numel() for tensor in expected.values())
    for name, tensor in held.items():
        target, pattern = rename_source_key(name, renamings, converters, base, expected)
        target = name if target not in expected and name in expected else target
        if target not in expected:
            continue
        if exact and pattern is None and tensor.shape != expected[target].shape:
            raise _misfit(name, tensor, target, expected[target])
        if tensor.numel() > entries:
            raise CheckpointError(
                f"{name!r} has shape {tuple(tensor.shape)} in the folder, more entries than the "
                "whole model that its configuration describes; fetch or write it again"
            )


def _misfit(stored: str, tensor: Tensor, name: str, expected: Tensor) -> CheckpointError:
    return CheckpointError(
        f"{stored!r} has shape {tuple(tensor.shape)} in the folder, and the model that its "
        f"configuration describes expects {tuple(expected.shape)} for {name!r}; fetch or write it "
        "again"
    )


def _conversions(model: nn.Module) -> tuple[list[Any], list[Any]]:
    """Return the renamings and the converters that transformers has for a model."""
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightConverter

    transforms = get_model_conversion_mapping(model)  # type: ignore[arg-type]
    converters = [t for t in transforms if isinstance(t, WeightConverter)]
    return [t for t in transforms if not isinstance(t, WeightConverter)], converters


def _plain(tensor: Tensor) -> bool:
    return tensor.is_floating_point() and tensor.element_size() > 1
