"""What became of a damaged folder: a clean error, or the meaning that the text gives its bytes."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from thresher.core.errors import ThresherError
from thresher.run.files.checkpoint import Checkpoint, Shards
from thresher.run.files.index import weight_map
from thresher.run.files.loader import ThresherConfig, ThresherQuantizer
from thresher.run.layouts.convolution import as_matrix

from . import reference
from .reference import Refused, Stored

_NAMES = {
    torch.bfloat16: "BF16",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.float64: "F64",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint64: "U64",
    torch.uint32: "U32",
    torch.uint16: "U16",
    torch.uint8: "U8",
    torch.bool: "BOOL",
    torch.complex64: "C64",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    getattr(torch, "float8_e8m0fnu", None): "F8_E8M0",
}
_MOST_MULTIPLIED = 1 << 20


class Wrong(Exception):
    """Thresher read something else than the text says."""


def judge(folder: Path) -> str:
    """Return ``"refused"`` or ``"accepted"``.

    Both readers are asked, the one of the drivers and the one of ``from_pretrained`` up to the
    point where transformers takes over. What they accept is compared with the reference, bit for
    bit.

    Raises
    ------
    Wrong
        If one accepts what the text refuses, or reads something else.
    Exception
        Whatever is raised that is no ThresherError.
    """
    try:
        meant: dict[str, Stored | Refused] | Refused = reference.read_folder(folder)
    except Refused as refused:
        meant = refused
    readings = [_outcome(reader(folder), meant) for reader in (_as_driver, _as_loader)]
    return "accepted" if any(readings) else "refused"


def _outcome(
    weights: Iterator[tuple[str, torch.Tensor]], meant: dict[str, Stored | Refused] | Refused
) -> bool:
    """Compare what a reader reads; return whether it read everything."""
    whole = True
    while True:
        try:
            name, found = next(weights)
        except StopIteration:
            return whole
        except ThresherError as error:
            if not str(error):
                raise Wrong("an error without a message") from error
            return False
        if found is None:
            whole = False
            continue
        expected = meant if isinstance(meant, Refused) else meant.get(name)
        if not isinstance(expected, Stored):
            raise Wrong(f"{name!r} is accepted, and the text says: {expected}")
        _compare(name, found, expected)


def _as_driver(folder: Path) -> Iterator[tuple[str, torch.Tensor | None]]:
    checkpoint = Checkpoint(folder)
    with checkpoint.opened():
        for name in checkpoint:
            yield name, _cleanly(lambda name=name: checkpoint.tensor(name))


def _as_loader(folder: Path) -> Iterator[tuple[str, torch.Tensor | None]]:
    config = json.loads((folder / "config.json").read_bytes()) if _is_json(folder) else None
    quantization = config.get("quantization_config") if isinstance(config, dict) else None
    if not isinstance(quantization, dict) or quantization.get("quant_method") != "thresher":
        return  # transformers would not come to Thresher's loader
    if any(not key.isidentifier() for key in quantization):
        return
    quantizer = ThresherQuantizer(ThresherConfig(**quantization))
    files = weight_map(folder)
    if files is None:
        return
    shards = Shards.of_files(sorted(set(files.values())), str(folder), quantizer.stored)
    shards.check_once()
    with shards.opened():
        for name in shards:
            if shards.is_packed(name):
                yield name, _cleanly(lambda name=name: _bound(quantizer, shards, name))


def _is_json(folder: Path) -> bool:
    try:
        json.loads((folder / "config.json").read_bytes())
    except (ValueError, RecursionError):
        return False
    return True


def _bound(quantizer: ThresherQuantizer, shards: Shards, name: str) -> torch.Tensor:
    """Return a weight as a packed layer holds it, once it has multiplied something."""
    layout = quantizer.stored.matrix(name, shards.packed(name))
    shards._check_size(name)
    rows, columns = layout.shape
    if max(rows, 1) * max(columns, 1) <= _MOST_MULTIPLIED:
        for batch in (1, 17):
            layout.matmul(torch.ones(batch, columns, dtype=layout.dtype))
    return layout.to_dense()


def _cleanly(read) -> torch.Tensor | None:
    try:
        return read()
    except ThresherError:
        return None


def _compare(name: str, found: torch.Tensor, expected: Stored) -> None:
    dtype, wanted = _NAMES.get(found.dtype), expected.bits
    # A view as bytes needs the strides of a tensor that was made so.
    flat = torch.empty(found.numel(), dtype=found.dtype).copy_(found.detach().reshape(-1))
    bits = flat.view(torch.uint8).numpy() if found.numel() else None
    if bits is None:
        if wanted.size or dtype != expected.dtype:
            raise Wrong(f"{name!r} is empty")
        return
    shape, width = tuple(found.shape), found.element_size()
    entries = bits.view(f"u{width}")
    if shape != wanted.shape and not _is_matrix_of(shape, wanted.shape):
        raise Wrong(f"{name!r} has shape {shape}, the text says {wanted.shape}")
    if shape != wanted.shape and wanted.ndim == 4:
        ordered = as_matrix(torch.from_numpy(wanted.astype("i8"))).numpy()
        wanted = ordered.astype(wanted.dtype)
    flat_wanted = np.ascontiguousarray(wanted).reshape(-1)
    same = entries == flat_wanted
    if dtype == "BOOL":  # any byte but zero is true
        same = (entries != 0) == (flat_wanted != 0)
    if dtype in ("F32", "BF16"):
        numbers = found.reshape(-1).isnan().numpy()
        mantissa = entries & (0x7FFFFF if dtype == "F32" else 0x7F)
        nan = reference.Stored(dtype, np.ascontiguousarray(wanted).reshape(-1))
        same |= numbers & np.isnan(reference.floats(nan)) & (mantissa != 0)
    if dtype != expected.dtype or not same.all():
        raise Wrong(f"{name!r} is not what the text says, at {int(np.argmin(same))} of {shape}")


def _is_matrix_of(shape: tuple[int, ...], whole: tuple[int, ...]) -> bool:
    return len(shape) == 2 and shape == (whole[0], math.prod(whole[1:]))
