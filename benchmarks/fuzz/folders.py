"""Small sparse folders, whole ones of every layout and damaged ones, as bytes."""

from __future__ import annotations

import copy
import json
import math
import random
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from thresher.run.layouts import formats
from thresher.run.layouts.base import Layout
from thresher.run.layouts.convolution import as_matrix

from .reference import WIDTHS

INDEX = "thresher.safetensors.index.json"
_TYPES = {
    torch.bfloat16: "BF16",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.int64: "I64",
    torch.uint16: "U16",
    torch.int8: "I8",
    torch.uint8: "U8",
}
_NUMBERS = (
    *(-1, 0, 1, 2, 3, 4, 7, 8, 15, 16, 17, 31, 32, 33, 64, 255, 256, 257, 65535, 65536, 65537),
    *(2**31 - 1, 2**31, 2**32, 2**40, 2**53, 2**53 + 1, 2**61, 2**62, 2**63 - 1, 2**63, -(2**63)),
    *(1.0, True, None, "4", "x", [4], {}),
)


@dataclass
class Tensor:
    """A tensor of a file: its header may say anything."""

    dtype: str
    shape: list[Any]
    data: bytes


@dataclass
class Draft:
    """A folder that is not written yet.

    Parameters
    ----------
    config, index : object
        What their JSON files hold; None for no index, and one shard as ``model.safetensors``.
    shards : dict
        Tensors by name, of each shard by name.
    spoil : dict
        What is done with the bytes of files at the end.
    """

    config: Any
    index: Any
    shards: dict[str, dict[str, Tensor]]
    spoil: dict[str, Callable[[bytes], bytes]]

    def write(self, folder: Path) -> None:
        """Write all files."""
        files = {"config.json": _json(self.config)}
        if self.index is not None:
            files[INDEX] = _json(self.index)
        files |= {name: _shard(tensors) for name, tensors in self.shards.items()}
        for name, content in files.items():
            change = self.spoil.get(name, lambda content: content)
            (folder / name).write_bytes(change(content))


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()


def _shard(tensors: dict[str, Tensor]) -> bytes:
    header, end = {}, 0
    for name, tensor in tensors.items():
        offsets = [end, end + len(tensor.data)]
        header[name] = {"dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": offsets}
        end = offsets[1]
    text = _json(header)
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + b"".join(t.data for t in tensors.values())


def whole_folders() -> list[Draft]:
    """Return one undamaged folder of every layout, and of weights that are not listed."""
    drafts = []
    for seed, (name, kind) in enumerate(sorted(Layout.known().items())):
        if not kind.__module__.startswith("thresher."):
            continue
        for dtype, shape in ((torch.bfloat16, (24, 128)), (torch.float32, (13, 64 + 3))):
            generator = torch.Generator().manual_seed(seed)
            weight = torch.randn(shape, generator=generator)
            weight = (weight * (torch.rand(shape, generator=generator) < 0.4)).to(dtype)
            example = kind.example(weight)
            if example is not None and example.numel():
                packed = kind.from_dense(example)
                drafts.append(_listed(name, packed, list(packed.shape)))
    for name in ("csr", "row-groups"):
        weight = torch.randn((6, 3, 3, 2), generator=torch.Generator().manual_seed(0))
        matrix = as_matrix(weight * (weight > 0.2))
        packed = Layout.named(name).from_dense(matrix)
        drafts.append(_listed(name, packed, list(weight.shape)))
    return drafts + [_not_listed(group) for group in (None, 4, 5)]


def _tensor(tensor: torch.Tensor) -> Tensor:
    flat = tensor.contiguous()
    data = flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b""
    return Tensor(_TYPES[tensor.dtype], list(tensor.shape), data)


def _draft(quantization: dict, tensors: dict[str, Tensor]) -> Draft:
    config = {"model_type": "llama", "dtype": "float32"}
    config["quantization_config"] = {"quant_method": "thresher", "format_version": 2} | quantization
    tensors["m.norm.weight"] = _tensor(torch.ones(8))
    names = list(tensors)
    halves = {"thresher-00000.safetensors": names[:-1], "thresher-00001.safetensors": names[-1:]}
    shards = {file: {name: tensors[name] for name in half} for file, half in halves.items()}
    places = {name: file for file, half in halves.items() for name in half}
    return Draft(config, {"metadata": {"total_size": 1}, "weight_map": places}, shards, {})


def _listed(name: str, packed: Layout, shape: list[int]) -> Draft:
    tensors = {"m.a.weight_shape": _tensor(torch.tensor(shape))}
    tensors |= {f"m.a.weight_{key}": _tensor(tensor) for key, tensor in packed.tensors().items()}
    entry = {
        "layout": name,
        "settings": dict(packed.settings),
        "tensors": sorted(packed.tensors()),
        "weights": ["m.a.weight"],
    }
    return _draft({"packed": True, "layouts": [entry]}, tensors)


def _not_listed(group: int | None) -> Draft:
    score = torch.rand((6, 40), generator=torch.Generator().manual_seed(0))
    mask = score > 0.5
    if group:
        parts = score.reshape(6, 40 // group, group)
        mask = (parts.argsort(-1).argsort(-1) < 2).reshape(6, 40)
    tensors = {}
    for name in ("m.a.weight", "m.b.weight"):
        packed = formats.pack(score.bfloat16(), mask, group)
        tensors |= {name + suffix: _tensor(part) for suffix, part in packed.items()}
    return _draft({"group": group} if group else {}, tensors)


def damaged(drafts: list[Draft], number: int, seed: int) -> Draft:
    """Return the folder of a number: one that is damaged in one to three ways."""
    dice = random.Random(f"{seed}:{number}")
    draft = copy.deepcopy(dice.choice(drafts))
    for _ in range(dice.choice((1, 1, 2, 3))):
        dice.choice(_DAMAGE)(draft, dice)
    return draft


def _some_tensor(draft: Draft, dice: random.Random) -> tuple[dict[str, Tensor], str]:
    shard = dice.choice(list(draft.shards.values()))
    while not shard:
        shard = dice.choice(list(draft.shards.values()))
    return shard, dice.choice(list(shard))


def _entry(draft: Draft, dice: random.Random) -> dict:
    """Return an entry of the configuration that says how weights are stored."""
    found = draft.config.get("quantization_config") if isinstance(draft.config, dict) else None
    if not isinstance(found, dict):
        return {}
    layouts = found.get("layouts")
    inner = layouts[0] if isinstance(layouts, list) and layouts else found
    return dice.choice((found, inner if isinstance(inner, dict) else found))


def _byte(draft: Draft, dice: random.Random) -> None:
    """Change bytes of a buffer."""
    shard, name = _some_tensor(draft, dice)
    data = bytearray(shard[name].data)
    for _ in range(dice.choice((1, 1, 4))):
        if data:
            data[dice.randrange(len(data))] = dice.choice(
                (0, 1, 127, 128, 255, dice.randrange(256))
            )
    shard[name].data = bytes(data)


def _bit(draft: Draft, dice: random.Random) -> None:
    shard, name = _some_tensor(draft, dice)
    data = bytearray(shard[name].data)
    if data:
        data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
    shard[name].data = bytes(data)


def _number(draft: Draft, dice: random.Random) -> None:
    """Put a number that is at some limit into a buffer of integers."""
    shard, name = _some_tensor(draft, dice)
    width = WIDTHS.get(shard[name].dtype, 1)
    data = bytearray(shard[name].data)
    value = dice.choice([n for n in _NUMBERS if type(n) is int])
    if len(data) >= width:
        at = dice.randrange(len(data) // width) * width
        data[at : at + width] = (value % (1 << 8 * width)).to_bytes(width, "little")
    shard[name].data = bytes(data)


def _dense_shape(draft: Draft, dice: random.Random) -> None:
    """Say another shape of a weight."""
    for shard in draft.shards.values():
        for name in [n for n in shard if n.endswith("_shape")]:
            old = list(struct.unpack(f"<{len(shard[name].data) // 8}q", shard[name].data))
            sizes = [n for n in _NUMBERS if type(n) is int and -(2**63) <= n < 2**63]
            choice = dice.randrange(6)
            if choice == 0 and old:
                old[dice.randrange(len(old))] = dice.choice(sizes)
            elif choice == 1:
                old = [dice.choice(sizes) for _ in range(dice.choice((0, 1, 2, 3, 4, 5, 9)))]
            elif choice == 2:
                dice.shuffle(old)
            elif choice == 3 and old:
                old[dice.randrange(len(old))] += dice.choice((-1, 1))
            elif choice == 4:
                old.append(1)
            elif len(old) > 1 and old[1] % 2 == 0:
                old[0], old[1] = old[0] * 2, old[1] // 2
            old = [max(-(2**63), min(2**63 - 1, n)) for n in old]
            shard[name] = Tensor("I64", [len(old)], struct.pack(f"<{len(old)}q", *old))


def _empty(draft: Draft, dice: random.Random) -> None:
    """Leave nothing in the buffers but large sizes in the shape: gigabytes from kilobytes."""
    sizes = [dice.choice((0, 1, 2**14, 2**20, 2**30, 2**40, 2**62)) for _ in range(2)]
    for shard in draft.shards.values():
        for name, tensor in shard.items():
            if name.endswith("_shape"):
                shard[name] = Tensor("I64", [2], struct.pack("<2q", *sizes))
            elif "_" in name and tensor.dtype != "I64":
                shard[name] = Tensor(tensor.dtype, [0, *tensor.shape[1:]], b"")
    entry = _entry(draft, dice)
    if isinstance(entry.get("settings"), dict) and "fan_in" in entry["settings"]:
        entry["settings"]["fan_in"] = 0


def _shape(draft: Draft, dice: random.Random) -> None:
    """Give a buffer another shape of as many bytes, or others."""
    shard, name = _some_tensor(draft, dice)
    tensor = shard[name]
    choice = dice.randrange(5)
    if choice == 0:
        tensor.shape = [len(tensor.data) // WIDTHS.get(tensor.dtype, 1)]
    elif choice == 1:
        tensor.shape = [1, *tensor.shape]
    elif choice == 2:
        tensor.shape = tensor.shape[::-1]
    elif choice == 3 and tensor.shape and type(tensor.shape[0]) is int:
        first = max(0, min(1000, tensor.shape[0] + dice.choice((-1, 1))))
        each = math.prod(tensor.shape[1:]) * WIDTHS.get(tensor.dtype, 1)
        tensor.data = (tensor.data + bytes(min(each, 1 << 16)))[: each * first]
        tensor.shape = [first, *tensor.shape[1:]]
    else:
        tensor.shape = [dice.choice(_NUMBERS) for _ in range(dice.randrange(4))]


def _dtype(draft: Draft, dice: random.Random) -> None:
    """Say another type of a buffer, of the same width or not."""
    shard, name = _some_tensor(draft, dice)
    tensor = shard[name]
    same = [t for t, width in WIDTHS.items() if width == WIDTHS.get(tensor.dtype)]
    others = ["F4", "I64", "no type"][: dice.choice((0, 3))]
    tensor.dtype = dice.choice(same + others or [tensor.dtype])


def _names(draft: Draft, dice: random.Random) -> None:
    """Rename, lose, repeat or add a tensor; the index may follow."""
    shard, name = _some_tensor(draft, dice)
    stem, _, suffix = name.rpartition("_")
    new = dice.choice(
        (
            f"{name}x",
            f"{stem}_",
            name.removeprefix("m."),
            f"base.{name}",
            f"{stem}_{dice.choice(('values', 'shape', 'bitmask', 'indices', 'row_starts'))}",
            stem or name,
            "",
            "\ud800",
            "(a+)+!" + "a" * 40,
            suffix,
        )
    )
    choice = dice.randrange(4)
    tensors = {other: tensor for other, tensor in shard.items() if other != name or choice == 2}
    if choice != 0:
        tensors[new] = copy.deepcopy(shard[name])
    shard.clear()
    shard.update(tensors)
    places = draft.index.get("weight_map") if isinstance(draft.index, dict) else None
    if isinstance(places, dict) and dice.random() < 0.8:
        place = places.pop(name, None) if choice != 2 else places.get(name)
        if choice and place:
            places[new] = place


def _settings(draft: Draft, dice: random.Random) -> None:
    entry = _entry(draft, dice)
    settings = entry.get("settings")
    if isinstance(settings, dict) and settings and dice.random() < 0.8:
        key = dice.choice(list(settings))
        if dice.random() < 0.15:
            del settings[key]
        else:
            settings[key] = dice.choice(_NUMBERS)
    elif isinstance(settings, dict):
        settings[dice.choice(("n", "m", "extra"))] = dice.choice(_NUMBERS)
    elif entry:
        entry["group"] = dice.choice(_NUMBERS)


def _config(draft: Draft, dice: random.Random) -> None:
    """Change any entry of the configuration that is about weights."""
    entry = _entry(draft, dice)
    if not entry:
        return
    key = dice.choice(list(entry))
    layouts = sorted(Layout.known())
    values = [*_NUMBERS, [], ["values"], ["shape"], ["(a+)+!"], [1], [None], {"a": 1}, False]
    if key == "layout" and dice.random() < 0.7:
        entry[key] = dice.choice(layouts)
    elif dice.random() < 0.15:
        del entry[key]
    elif isinstance(entry[key], list) and entry[key] and dice.random() < 0.5:
        found = entry[key]
        found[dice.randrange(len(found))] = dice.choice([*values, *found, "m.b.weight"])
    else:
        entry[key] = dice.choice(values)


def _whole_config(draft: Draft, dice: random.Random) -> None:
    if not isinstance(draft.config, dict):
        return
    choice = dice.randrange(4)
    if choice == 0:
        draft.config.pop("quantization_config", None)
    elif choice == 1:
        draft.config["quantization_config"] = dice.choice((*_NUMBERS, [{}], "thresher"))
    elif choice == 2:
        draft.config = dice.choice(([], 4, "x", None, [draft.config], {}))
    else:
        draft.config["compression_config"] = dice.choice(({}, {"quant_method": "fp8"}, 3))


def _index(draft: Draft, dice: random.Random) -> None:
    """Change the index, or where it leads."""
    if not isinstance(draft.index, dict):
        return
    places = draft.index.get("weight_map")
    leads = (
        "../config.json",
        "/etc/passwd",
        "",
        ".",
        "..",
        "config.json",
        "a\0b",
        "C:\\x",
        "no",
        3,
    )
    leads += (None, ["x"], "\ud800", *draft.shards)
    choice = dice.randrange(6)
    if choice == 0 and isinstance(places, dict) and places:
        places[dice.choice(list(places))] = dice.choice(leads)
    elif choice == 1:
        draft.index["weight_map"] = dice.choice(([], None, {}, "x", 3, {"m.a.weight": "no"}))
    elif choice == 2:
        draft.index = dice.choice(([], 4, "x", {}, {"metadata": {}}))
    elif choice == 3:
        draft.index["metadata"] = dice.choice((None, 3, [], {}))
    elif choice == 4 and isinstance(places, dict) and places:
        places.pop(dice.choice(list(places)))
    else:
        tensors = {n: t for shard in draft.shards.values() for n, t in shard.items()}
        draft.index, draft.shards = None, {"model.safetensors": tensors}


def _bytes(draft: Draft, dice: random.Random) -> None:
    """Spoil a file as bytes: cut it, change it, put something else there."""
    file = dice.choice(["config.json", INDEX, *draft.shards])
    at, other, choice = dice.random(), dice.randrange(256), dice.randrange(7)

    def spoil(content: bytes) -> bytes:
        place = int(at * len(content))
        head = min(place, 400) if choice == 1 else place
        changed = bytes([other])
        return (
            content[:place],
            content[:head] + changed + content[head + 1 :],
            content[:place] + changed + content[place:],
            content + changed,
            b"",
            b"[" * 100_000,
            b"\xff\xfe" + content,
        )[choice]

    draft.spoil[file] = spoil


def _offsets(draft: Draft, dice: random.Random) -> None:
    """Change digits of a header, so that its offsets, shapes and lengths are others."""
    file, at, digit = (
        dice.choice(list(draft.shards)),
        dice.random(),
        str(dice.randrange(10)).encode(),
    )

    def spoil(content: bytes) -> bytes:
        length = struct.unpack("<Q", content[:8])[0] if len(content) >= 8 else 0
        digits = [
            i for i in range(8, min(8 + length, len(content))) if content[i : i + 1].isdigit()
        ]
        if not digits:
            return content
        place = digits[int(at * len(digits))]
        return content[:place] + digit + content[place + 1 :]

    draft.spoil[file] = spoil


_DAMAGE = (
    *(_byte, _byte, _bit, _bit, _bit, _number, _number, _dense_shape, _dense_shape, _empty),
    *(_shape, _shape, _dtype, _names, _names, _settings, _settings, _config, _whole_config),
    *(_index, _bytes, _offsets),
)
