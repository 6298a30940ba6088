"""A Hugging Face model without weights, filled from disk one module at a time."""

from __future__ import annotations

__all__ = ["Skeleton"]

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn

from ..core.errors import CheckpointError
from .files.checkpoint import Checkpoint


class Skeleton:
    """A model on the meta device whose modules are loaded when they are needed.

    Parameters
    ----------
    folder : Path
        A Hugging Face model folder with safetensors.
    dtype : torch.dtype, optional
        Convert floating weights on loading; by default they stay as stored.

    Attributes
    ----------
    model : nn.Module
        In evaluation mode; parameters without data until loaded.
    checkpoint : Checkpoint
        Where the weights are.

    Raises
    ------
    CheckpointError
        If the folder has no usable configuration, or its weights do not match the
        architecture's names.
    """

    def __init__(self, folder: Path, dtype: torch.dtype | None = None) -> None:
        self.checkpoint = Checkpoint(folder)
        self.dtype = dtype
        self.model = _build(folder)
        self._stored = self._match_names()

    def stored_name(self, parameter: str) -> str | None:
        """Return the name under which a parameter is stored; None for a tied one."""
        return self._stored.get(parameter)

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
            module.to("meta")

    def load(self, module: nn.Module, prefix: str) -> None:
        """Give a module its weights."""
        for local, parameter in list(module.named_parameters()):
            if parameter.is_meta:
                self._assign(module, local, f"{prefix}.{local}".strip("."))

    def tensors(self, prefix: str) -> dict[str, torch.Tensor]:
        """Return the weights that a loaded module would write, by stored name."""
        module = self.model.get_submodule(prefix)
        found = {}
        for local, parameter in module.named_parameters():
            name = self._stored.get(f"{prefix}.{local}".strip("."))
            if name is not None:
                found[name] = parameter.detach()
        return found

    def cast(self, tensor: torch.Tensor) -> torch.Tensor:
        """Convert a floating tensor to the asked dtype."""
        if self.dtype is None or not tensor.is_floating_point():
            return tensor
        return tensor.to(self.dtype)

    def _assign(self, module: nn.Module, local: str, full: str) -> None:
        stored = self._stored.get(full)
        if stored is None:
            raise CheckpointError(f"parameter {full!r} is tied to another and cannot load alone")
        value = self.cast(self.checkpoint.tensor(stored))
        owner_path, _, leaf = local.rpartition(".")
        owner = module.get_submodule(owner_path)
        expected = getattr(owner, leaf).shape
        if value.shape != expected:
            raise CheckpointError(
                f"{stored!r} has shape {tuple(value.shape)}, and the configuration of "
                f"{str(self.checkpoint.folder)!r} says {tuple(expected)}"
            )
        setattr(owner, leaf, nn.Parameter(value, requires_grad=False))

    def _match_names(self) -> dict[str, str]:
        """Map parameters to stored names, which may lack or add the base model's prefix."""
        base = getattr(self.model, "base_model_prefix", "")
        matched: dict[str, str] = {}
        tied = getattr(self.model, "all_tied_weights_keys", None) or {}
        missing = []
        for name, _ in self.model.named_parameters():
            options = (name, name.removeprefix(f"{base}."), f"{base}.{name}")
            stored = next((option for option in options if option in self.checkpoint), None)
            if stored is not None:
                matched[name] = stored
            elif name not in tied:
                missing.append(name)
        if missing:
            raise CheckpointError(
                f"{str(self.checkpoint.folder)!r} stores {type(self.model).__name__} under other "
                f"names (no {missing[0]!r} and {len(missing) - 1} more); load it with "
                "transformers, save it with save_pretrained, and use that folder"
            )
        return matched


def _build(folder: Path) -> nn.Module:
    import transformers
    from accelerate import init_empty_weights

    try:
        config = transformers.AutoConfig.from_pretrained(folder)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{str(folder)!r} has no usable config.json: {error}") from error
    architectures = getattr(config, "architectures", None) or []
    kind = getattr(transformers, architectures[0], None) if architectures else None
    if kind is None:
        raise CheckpointError(
            f"config.json of {str(folder)!r} names architecture {architectures}, which this "
            "transformers does not have; install the version that made the model"
        )
    # The sparse format is read by us here, not by the loader in transformers.
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    # Buffers such as rotary frequencies are computed, not stored, so they must be real.
    with init_empty_weights(include_buffers=False):
        model: nn.Module = kind(config)
    return model.eval()
