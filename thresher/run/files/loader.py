"""Teaches transformers' ``from_pretrained`` to read sparse checkpoints."""

from __future__ import annotations

__all__ = ["ThresherConfig", "ThresherQuantizer"]

import dataclasses
import inspect
import re
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import wrapt
from torch import Tensor, nn
from transformers.modeling_utils import PreTrainedModel
from transformers.quantizers.auto import register_quantization_config, register_quantizer
from transformers.quantizers.base import HfQuantizer
from transformers.utils.quantization_config import QuantizationConfigMixin

from ...core.errors import CheckpointError
from ...parts.groups.sizes import cut, sizes_of
from ..layouts.base import Layout
from ..layouts.convolution import Geometry
from ..layouts.convolving import ConvolvingLayout
from ..layouts.kernel import value_dtypes
from ..packed.conv import PackedConv2d
from ..packed.layer import PackedLayer
from ..packed.linear import PackedLinear
from ..packed.replaceable import computes_as, used_elsewhere
from ..packed.swap import swap
from .activations import ACTIVATIONS_FILE, load_activations, save_activations
from .checkpoint import CONFIG_KEY, Shards, check_version
from .index import INDEX_FILE, check_inside, weight_map
from .names import Names, check_fit
from .saver import save_packed
from .stored import StoredWeights, record_layouts
from .tensors import spelled


@register_quantization_config("thresher")
class ThresherConfig(QuantizationConfigMixin):
    """The ``quantization_config`` of a sparse checkpoint.

    Parameters
    ----------
    format_version : int
        Version of the packed format; a folder that does not say it is refused.
    group : int, optional
        M, when supports are N:M.
    packed : bool, default False
        Whether linear layers are loaded as
        :class:`~thresher.run.packed.linear.PackedLinear`, in the layout that they are stored
        in, or as ordinary dense ones.
    layouts : list of dict, optional
        How weights are stored, see :func:`thresher.run.files.stored.describe_layouts`.
    """

    def __init__(
        self,
        format_version: int | None = None,
        group: int | None = None,
        packed: bool = False,
        layouts: list[dict[str, Any]] | None = None,
        **_: Any,
    ) -> None:
        self.quant_method = "thresher"  # type: ignore[assignment]
        self.format_version = format_version
        self.group = group
        self.packed = packed
        self.layouts = layouts

    @property
    def dequantize(self) -> bool:
        """Whether the loader builds an ordinary model, which is dense when it is saved again."""
        return not self.packed

    def to_dict(self) -> dict[str, Any]:
        """Return what a configuration file keeps."""
        return {key: value for key, value in vars(self).items() if value not in (None, False)}


@register_quantizer("thresher")
class ThresherQuantizer(HfQuantizer):
    """Loads packed weights, into packed layers or into the model's ordinary ones.

    transformers is shown a state dict of dense weights, each of which is unpacked as it is
    asked for, and does with them what it does with those of any folder.
    """

    quantization_config: ThresherConfig
    requires_calibration = True
    is_trainable = True

    def __init__(self, quantization_config: ThresherConfig, **options: Any) -> None:
        super().__init__(quantization_config, **options)
        check_version(vars(quantization_config), "this checkpoint")
        self.stored = StoredWeights(quantization_config.group, quantization_config.layouts)
        self._claimed: dict[str, Layout] = {}
        self._conversions: Any = None
        self._loaded = False

    def update_attn_implementation(self, config: Any) -> Any:
        """Name the file of weights: the first time that transformers shows the configuration.

        Raises
        ------
        CheckpointError
            If the index of a local folder is damaged or leads out of it: transformers would follow.
        """
        folder = Path(getattr(config, "name_or_path", None) or "")
        if folder.name and folder.is_dir():
            weight_map(folder)
        if getattr(config, "transformers_weights", None):
            config.transformers_weights = INDEX_FILE
        return config

    # Called by the versions of transformers that know no `update_attn_implementation`.
    update_tp_plan = update_attn_implementation

    def is_serializable(self) -> bool:
        """Return True: an ordinary model is saved dense, a packed one packed."""
        return True

    def load(self, load: Callable[..., Any], arguments: dict[str, Any]) -> Any:
        """Let transformers load a model from weights that are unpacked one at a time.

        Parameters
        ----------
        load : callable
            ``PreTrainedModel._load_pretrained_model``.
        arguments : dict
            What it was to be called with.

        Raises
        ------
        CheckpointError
            If a tensor is missing, damaged or of another shape.
        """
        config, model = arguments["load_config"], arguments["model"]
        files = [Path(file) for file in arguments["checkpoint_files"]]
        where = str(config.pretrained_model_name_or_path)
        check_inside(Path(where) if Path(where).is_dir() else files[0].parent, files)
        shards = Shards.of_files(files, where, self.stored)
        shards.check_once()
        with shards.opened():
            outlines = {name: shards.outline(name) for name in shards}
            claimed: set[str] = set()
            if self.quantization_config.packed:
                names = Names(model, outlines)
                claimed = self._claim(model, shards, names, config.device_map or {})
            else:
                unpacked = {n: o for n, o in outlines.items() if shards.is_packed(n)}
                check_fit(model, unpacked, not config.ignore_mismatched_sizes)
            shards.confirm(outlines)
            state = {n: _Lazy(shards, n) for n in shards if n not in claimed}
            # To the loader this is an ordinary model with ordinary weights.
            plain = dataclasses.replace(config, hf_quantizer=None)
            found = load(**{**arguments, "state_dict": state, "load_config": plain})
        self._check_nothing_missing(model, found[0] if isinstance(found, tuple) else found, config)
        self._conversions = getattr(model, "_weight_conversions", None)
        self._loaded = True
        return found

    def _claim(
        self, model: Any, shards: Shards, names: Names, devices: Mapping[str, Any]
    ) -> set[str]:
        """Bind the weights that stay packed; return their stored names."""
        claimed: set[str] = set()
        dense: dict[str, str] = {}
        elsewhere = used_elsewhere(model)
        for target, group in names.groups.items():
            stored = next(iter(group.stored))
            path, _, leaf = target.rpartition(".")
            if not shards.is_packed(stored):
                continue
            layer = model.get_submodule(path)
            reason = elsewhere.get(layer) or self._why_dense(layer, stored)
            if leaf != "weight":
                reason = _no_packed_form(layer)
            if group.converter is not None:
                reason = "transformers merges or splits it as it loads it"
            if reason:
                dense[stored] = reason
                continue
            weight = model.get_submodule(path).weight
            _check_multiplies(path, weight.dtype)
            parts = {
                suffix: part.to(weight.dtype) if part.is_floating_point() else part
                for suffix, part in shards.packed(stored).items()
            }
            self._claimed[path] = self.stored.matrix(stored, parts).to(_device(path, devices))
            # The layer keeps its place until the loader is done, and its weight stays empty.
            weight._is_hf_initialized = True
            model.all_tied_weights_keys.pop(target, None)
            claimed.add(stored)
        self._claim_tied(model)
        if dense:
            name, reason = next(iter(dense.items()))
            warnings.warn(
                f"{len(dense)} of {len(dense) + len(claimed)} packed weights are loaded dense: "
                f"{name!r}, because {reason}",
                stacklevel=2,
            )
        return claimed

    def _claim_tied(self, model: Any) -> None:
        """Have layers whose weight is tied to a packed one share its layout: it is stored once."""
        for target, source in list(model.all_tied_weights_keys.items()):
            layout = self._claimed.get(source.removesuffix(".weight"))
            if layout is not None and target.endswith(".weight"):
                self._claimed[target.removesuffix(".weight")] = layout
                del model.all_tied_weights_keys[target]

    def _why_dense(self, layer: nn.Module, weight: str) -> str:
        """Return why a layer has no packed form for the layout of its weight; empty if it has."""
        if not isinstance(layer, nn.Linear | nn.Conv2d):
            return _no_packed_form(layer)
        base = nn.Linear if isinstance(layer, nn.Linear) else nn.Conv2d
        if not computes_as(layer, base):
            return f"{type(layer).__name__} does not compute what {base.__name__} does"
        if isinstance(layer, nn.Conv2d):
            layout = self.stored.layout_of(weight)
            if layer.padding_mode != "zeros":
                return "only padding with zeros has a sparse kernel"
            if layout is None or not issubclass(layout, ConvolvingLayout):
                return "its layout cannot convolve"
            if layer.groups > 1 and not layout.takes_groups:
                return f"layout {layout.name!r} cannot convolve in groups"
        return ""

    def _check_nothing_missing(self, model: Any, info: Any, config: Any) -> None:
        """Raise if a weight of the model that was saved has not arrived."""
        info.missing_keys -= {f"{path}.weight" for path in self._claimed}
        folder = str(config.pretrained_model_name_or_path)
        if info.mismatched_keys and not config.ignore_mismatched_sizes:
            name, found, expected = min(info.mismatched_keys, key=lambda each: each[0])
            raise CheckpointError(
                f"{name!r} has shape {tuple(found)} in {folder!r}, and the model expects "
                f"{tuple(expected)}"
            )
        if type(model).__name__ not in (getattr(model.config, "architectures", None) or ()):
            # Another model on the same body: its own head is new, as with any other folder.
            return
        ignored = [re.compile(p) for p in model._keys_to_ignore_on_load_missing or ()]
        tied = model.all_tied_weights_keys
        # Of tied weights either may be the one that is stored.
        arrived = {source for target, source in tied.items() if target not in info.missing_keys}
        missing = [
            name
            for name, _ in model.named_parameters(remove_duplicate=False)
            if name in info.missing_keys
            and name not in tied
            and name not in arrived
            and not any(pattern.search(name) for pattern in ignored)
        ]
        if missing:
            raise CheckpointError(
                f"{folder!r} has no tensor for {missing[0]!r} (and {len(missing) - 1} more "
                f"parameters) of {type(model).__name__}; write it again"
            )

    def _process_model_after_weight_loading(self, model: Any, **_: Any) -> Any:
        """Put the packed layers in place."""
        if not self._loaded:
            import transformers

            raise CheckpointError(
                f"transformers {transformers.__version__} loads models in a way that this "
                "Thresher does not know; write an ordinary folder with `thresher export`, or "
                "install an earlier transformers"
            )
        claimed = self._claimed.items()
        swap(model, {path: _packed(model.get_submodule(path), layout) for path, layout in claimed})
        self._claimed.clear()
        record_layouts(model)
        if hasattr(model.config, "transformers_weights"):
            del model.config.transformers_weights
        # Dropped with the marks of a quantised model, and needed to save under the same names.
        if self._conversions is not None:
            model._weight_conversions = self._conversions
        return model


class _Lazy:
    """A weight of a folder that is read, and unpacked, when it is sliced, as safetensors' are."""

    def __init__(self, shards: Shards, name: str) -> None:
        self._shards, self._name = shards, name

    def __getitem__(self, index: Any) -> Tensor:
        return self._shards.tensor(self._name)[index]

    def get_shape(self) -> list[int]:
        """Return the shape of the dense weight."""
        return list(self._shards.outline(self._name).shape)

    def get_dtype(self) -> str:
        """Return the type of the dense weight as safetensors spells it."""
        return spelled[self._shards.outline(self._name).dtype]


def _no_packed_form(layer: nn.Module) -> str:
    return f"{type(layer).__name__} has no packed form"


def _check_multiplies(path: str, dtype: torch.dtype) -> None:
    """Raise unless packed layers compute in a type, which the user or the configuration chose."""
    if dtype not in value_dtypes:
        raise CheckpointError(
            f"the model is loaded in {dtype}, and its packed layer {path!r} computes only in "
            "bfloat16 or float32: pass dtype=torch.bfloat16 or dtype=torch.float32 to "
            "from_pretrained, or load dense layers with "
            'config.quantization_config["packed"] = False'
        )


def _packed(layer: nn.Module, layout: Layout) -> PackedLayer:
    """Return the packed layer that takes the place of a layer without data."""
    if isinstance(layer, nn.Conv2d):
        assert isinstance(layout, ConvolvingLayout)
        return PackedConv2d(layout, Geometry.of(layer), layer.bias)
    assert isinstance(layer, nn.Linear)
    return PackedLinear(layout, layer.bias)


def _device(path: str, devices: Mapping[str, Any]) -> torch.device:
    """Return where a device map puts a module: the entry of its longest prefix."""
    prefixes = [name for name in devices if not name or f"{path}.".startswith(f"{name}.")]
    device = devices[max(prefixes, key=len)] if prefixes else "cpu"
    if device == "disk":
        raise CheckpointError(
            f"the device map leaves the packed layer {path!r} on disk, where nothing multiplies; "
            'give it "cpu"'
        )
    return torch.device(device)


def _load(load: Callable[..., Any], instance: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
    arguments = dict(inspect.signature(load).bind(*args, **kwargs).arguments)
    quantizer = getattr(arguments.get("load_config"), "hf_quantizer", None)
    sizes = sizes_of(arguments["model"].config)
    if sizes is not None:
        cut(arguments["model"], _stored_shapes(arguments, quantizer), sizes)
    if isinstance(quantizer, ThresherQuantizer):
        found = quantizer.load(load, arguments)
    else:
        found = load(*args, **kwargs)
    model = arguments["model"]
    if hasattr(model.config, CONFIG_KEY):
        load_activations(model, _activations_file(model, arguments))
    return found


def _stored_shapes(arguments: Mapping[str, Any], quantizer: Any) -> dict[str, tuple[int, ...]]:
    """Return the shapes of what a model is about to be loaded from, packed weights as dense."""
    files = [Path(file) for file in arguments.get("checkpoint_files") or ()]
    if not files:
        return {name: tuple(t.shape) for name, t in (arguments.get("state_dict") or {}).items()}
    known = isinstance(quantizer, ThresherQuantizer)
    stored = quantizer.stored if known else StoredWeights(sparse=False)
    shards = Shards.of_files(files, str(files[0].parent), stored)
    with shards.opened():
        return {name: tuple(shards.outline(name).shape) for name in shards}


def _activations_file(model: Any, arguments: Mapping[str, Any]) -> Path:
    """Return the file of thresholds beside the weights, from the hub if need be."""
    beside = [Path(file).parent for file in arguments.get("checkpoint_files") or ()]
    for folder in beside:
        if (folder / ACTIVATIONS_FILE).is_file():
            return folder / ACTIVATIONS_FILE
    name = model.config.name_or_path
    if Path(name).is_dir():
        return Path(name) / ACTIVATIONS_FILE  # which says that it is missing
    from transformers.utils.hub import cached_file

    revision = getattr(model.config, "_commit_hash", None)
    found = cached_file(name, ACTIVATIONS_FILE, revision=revision)
    return Path(str(found))


# This module is imported as soon as that of transformers' models is. A version without this method
# says so when a sparse folder is loaded.
wrapt.wrap_function_wrapper(PreTrainedModel, "save_pretrained", save_packed)
wrapt.wrap_function_wrapper(PreTrainedModel, "save_pretrained", save_activations)
if hasattr(PreTrainedModel, "_load_pretrained_model"):
    wrapt.wrap_function_wrapper(PreTrainedModel, "_load_pretrained_model", _load)
