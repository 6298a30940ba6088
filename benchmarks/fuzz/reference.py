"""A second reader of sparse folders, written from docs/format.md alone, in NumPy.

It uses nothing of Thresher, torch or safetensors, so that what both readers agree on is what the
text says. It is slow and patient: every rule is a line that raises :class:`Refused`.
"""

from __future__ import annotations

import itertools
import json
import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

#: Bytes of an entry, by the name of the type in a header.
WIDTHS = {
    "F64": 8,
    "F32": 4,
    "F16": 2,
    "BF16": 2,
    "F8_E4M3": 1,
    "F8_E5M2": 1,
    "F8_E8M0": 1,
    "I64": 8,
    "I32": 4,
    "I16": 2,
    "I8": 1,
    "U64": 8,
    "U32": 4,
    "U16": 2,
    "U8": 1,
    "BOOL": 1,
    "C64": 8,
}
FLOATS = ("BF16", "F32", "F16", "F64")
#: Entries that are decoded here; a test has no larger weights.
MOST_DECODED = 1 << 26
MOST_ENTRIES, MOST_UNHELD = 1 << 53, 1 << 24


class Refused(Exception):
    """The text of the format says that this must not be read."""


@dataclass
class Stored:
    """A tensor as a file holds it, or as it is decoded: the bits of its entries."""

    dtype: str
    bits: np.ndarray

    def numbers(self, kind: str) -> np.ndarray:
        """Return the entries as numbers of a type."""
        return self.bits.view(kind)


def need(rule: bool, why: str) -> None:
    if not rule:
        raise Refused(why)


def read_folder(folder: Path) -> dict[str, Stored | Refused]:
    """Return the dense weights of a folder by name, or why one of them must be refused."""
    quantization = read_object(folder / "config.json").get("quantization_config")
    tensors = read_tensors(folder)
    if quantization is None:
        return dict(tensors)
    group, listed = read_quantization(quantization)
    packed = sort_tensors(tensors, listed)
    inside = {part for parts in packed.values() for part in parts}
    found: dict[str, Stored | Refused] = {n: t for n, t in tensors.items() if n not in inside}
    for name, parts in packed.items():
        try:
            stored = {part.removeprefix(name)[1:]: tensors[part] for part in parts}
            found[name] = decode(stored, find(name, listed), group)
        except Refused as refused:
            found[name] = refused
    return found


def read_object(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes().decode("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise Refused(f"{path.name}: {error}") from error
    need(isinstance(found, dict), f"{path.name} is no object")
    return found


def read_quantization(found: Any) -> tuple[int | None, dict[str, dict]]:
    """Return M and the entry of every listed weight."""
    need(isinstance(found, dict) and found.get("quant_method") == "thresher", "quant_method")
    version, packed, group = (found.get(key) for key in ("format_version", "packed", "group"))
    need(type(version) is int and version in (1, 2), "format_version")
    need(packed is None or type(packed) is bool, "packed")
    need(group is None or (type(group) is int and 1 <= group <= 256), "group")
    layouts = found.get("layouts")
    need(layouts is None or isinstance(layouts, list), "layouts")
    listed: dict[str, dict] = {}
    for entry in layouts or []:
        need(isinstance(entry, dict) and isinstance(entry.get("layout"), str), "layout")
        settings = entry.get("settings")
        need(isinstance(settings, dict), "settings")
        need(all(type(value) is int for value in settings.values()), "a setting is no integer")
        for key in ("tensors", "weights"):
            names = entry.get(key)
            need(isinstance(names, list), key)
            need(all(isinstance(name, str) and name for name in names), key)
            need(len(set(names)) == len(names), f"{key} twice")
        need("shape" not in entry["tensors"], "shape is no buffer")
        need(not listed.keys() & set(entry["weights"]), "a weight listed twice")
        listed |= dict.fromkeys(entry["weights"], entry)
    return group, listed


def find(name: str, listed: dict[str, dict]) -> dict | None:
    """Return the entry of a weight, whose first component may be missing on either side."""
    if name in listed:
        return listed[name]
    without = name.partition(".")[2]
    if without in listed:
        return listed[without]
    for other, entry in listed.items():
        if "." in other and other.partition(".")[2] == name:
            return entry
    return None


def read_tensors(folder: Path) -> dict[str, Stored | Refused]:
    """Return every stored tensor of the folder's shards."""
    files: dict[str, str] = {}
    for index, sparse in (("thresher", True), ("model", False)):
        path = folder / f"{index}.safetensors.index.json"
        if not sparse and (folder / "model.safetensors").exists():
            return read_shard(folder / "model.safetensors")
        if path.exists():
            content = read_object(path)
            need(isinstance(content.get("weight_map"), dict), "weight_map")
            need(not sparse or isinstance(content.get("metadata"), dict), "metadata")
            files = content["weight_map"]
            break
    else:
        raise Refused("no weights")
    for file in files.values():
        need(isinstance(file, str), "a shard's name is no text")
        need("/" not in file and "\\" not in file, "this reader knows no subfolders")
        need((folder / file).is_file() and not (folder / file).is_symlink(), "no such shard")
    found: dict[str, Stored | Refused] = {}
    for file in sorted(set(files.values())):
        held = read_shard(folder / file)
        need(not found.keys() & held.keys(), "a tensor in two shards")
        need(all(name in held for name, place in files.items() if place == file), "promised")
        found |= held
    return found


def read_shard(path: Path) -> dict[str, Stored | Refused]:
    """Return the tensors of a safetensors file."""
    content = path.read_bytes()
    need(len(content) >= 8, "no header")
    (length,) = struct.unpack("<Q", content[:8])
    need(length <= min(len(content) - 8, 100_000_000), "a header that is too long")
    data = content[8 + length :]
    try:
        header = json.loads(content[8 : 8 + length].decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise Refused(f"header: {error}") from error
    need(isinstance(header, dict), "header is no object")
    header.pop("__metadata__", None)
    found: dict[str, Stored | Refused] = {}
    end = 0
    for entry in header.values():
        whole = isinstance(entry, dict) and {"dtype", "shape", "data_offsets"} <= entry.keys()
        need(whole, "an entry of the header")
        numbers = (entry["shape"], entry["data_offsets"])
        lists = all(isinstance(each, list) for each in numbers)
        need(lists and all(type(n) is int and n >= 0 for each in numbers for n in each), "numbers")
        need(len(entry["data_offsets"]) == 2 and isinstance(entry["dtype"], str), "offsets")
    ordered = sorted(header.items(), key=lambda item: tuple(item[1]["data_offsets"]))
    for name, entry in ordered:
        begin, past = entry["data_offsets"]
        need(entry["dtype"] in WIDTHS or entry["dtype"] == "F4", "type")
        entries = math.prod(entry["shape"])
        size = entries * WIDTHS[entry["dtype"]] if entry["dtype"] in WIDTHS else entries // 2
        need(begin == end and past - begin == size and past <= len(data), "offsets")
        end = past
        if entry["dtype"] == "F4":
            found[name] = Refused("a type that no weight has here")
            continue
        bits = np.frombuffer(data[begin:past], dtype=f"u{WIDTHS[entry['dtype']]}")
        try:
            found[name] = Stored(entry["dtype"], bits.reshape(entry["shape"]))
        except ValueError as error:
            # An empty tensor with a dimension beyond what arrays can have.
            found[name] = Refused(f"shape: {error}")
    need(end == len(data), "bytes that belong to no tensor")
    return found


def sort_tensors(
    tensors: dict[str, Stored | Refused], listed: dict[str, dict]
) -> dict[str, list[str]]:
    """Return the tensors of every packed weight."""
    found: dict[str, set[str]] = {}
    for tensor in tensors:
        for entry in {id(each): each for each in listed.values()}.values():
            for suffix in ("_shape", *(f"_{each}" for each in entry["tensors"])):
                name = tensor.removesuffix(suffix)
                if name != tensor and find(name, listed) is entry:
                    found.setdefault(name, set()).add(suffix)
    found = {name: suffixes for name, suffixes in found.items() if suffixes != {"_shape"}}
    for name, suffixes in found.items():
        wanted = {"_shape", *(f"_{each}" for each in find(name, listed)["tensors"])}
        need(suffixes == wanted, f"{name} is incomplete")
        others = [t for t in tensors if t.startswith(f"{name}_") and t[len(name) :] not in wanted]
        need(not others, f"{others} are of no layout")
    plain: dict[str, set[str]] = {}
    for tensor in tensors:
        for suffix in ("_values", "_shape", "_bitmask", "_indices"):
            name = tensor.removesuffix(suffix)
            if name and name != tensor and find(name, listed) is None:
                plain.setdefault(name, set()).add(suffix)
    for name, suffixes in plain.items():
        if len(suffixes) > 1:
            support = suffixes & {"_bitmask", "_indices"}
            need({"_values", "_shape"} <= suffixes and len(support) == 1, f"{name} is incomplete")
            found[name] = suffixes
    need(not found.keys() & tensors.keys(), "packed and as it is")
    return {name: [name + suffix for suffix in suffixes] for name, suffixes in found.items()}


def decode(parts: dict[str, Any], entry: dict | None, group: int | None) -> Stored:
    """Return the dense weight that the tensors of a packed one stand for."""
    for part in parts.values():
        if isinstance(part, Refused):
            raise part
    shape = parts.pop("shape")
    need(shape.dtype == "I64" and shape.bits.ndim == 1 and 2 <= shape.bits.size <= 8, "shape")
    sizes = [int(size) for size in shape.numbers("i8")]
    need(min(sizes) >= 0, "negative")
    most = MOST_ENTRIES if min(sizes) else MOST_UNHELD
    need(math.prod(max(size, 1) for size in sizes) <= most, "too large for any matrix")
    rows, columns = sizes[0], math.prod(sizes[1:])
    if entry is None:
        layout = "bitmask" if "bitmask" in parts else "n:m"
        settings = {} if layout == "bitmask" else positions_of(parts, columns, group)
    else:
        layout, settings = entry["layout"], entry["settings"]
        need(layout in LAYOUTS, "unknown layout")
    names, decoder = LAYOUTS[layout]
    need(settings.keys() == set(names), "settings")
    need(all(0 <= value < 1 << 31 for value in settings.values()), "a setting out of range")
    matrix = decoder(parts, rows, columns, **settings)
    if entry is not None and len(sizes) == 4 and min(sizes):
        out, channels, height, width = sizes
        bits = matrix.bits.reshape(out, height, width, channels).transpose(0, 3, 1, 2)
        return Stored(matrix.dtype, np.ascontiguousarray(bits))
    return Stored(matrix.dtype, matrix.bits.reshape(sizes))


def positions_of(parts: dict[str, Stored], columns: int, m: int | None) -> dict[str, int]:
    """Return N and M of a weight that is not listed."""
    need(m is not None and columns > 0 and columns % m == 0, "M")
    need("values" in parts and parts["values"].bits.ndim == 2, "values")
    kept, groups = parts["values"].bits.shape[1], columns // m
    need(kept > 0 and kept % groups == 0, "N")
    return {"n": kept // groups, "m": m}


def take(parts: dict[str, Stored], name: str, dtypes: tuple[str, ...], shape: tuple) -> np.ndarray:
    """Return the bits of a buffer of these types; a size that is None may be any."""
    need(name in parts, f"{name} is missing")
    found = parts[name]
    need(found.dtype in dtypes, f"{name} is {found.dtype}")
    same = found.bits.ndim == len(shape) and all(
        wanted is None or actual == wanted
        for actual, wanted in zip(found.bits.shape, shape, strict=True)
    )
    need(same, f"{name} has shape {found.bits.shape}, not {shape}")
    return found.bits


def only(parts: dict[str, Stored], *names: str) -> None:
    need(parts.keys() == set(names), f"buffers {sorted(parts)}")


def empty(parts: dict[str, Stored], name: str, rows: int, columns: int) -> np.ndarray:
    """Return zeros of the type of a buffer."""
    need(rows * columns <= MOST_DECODED, "larger than this reader decodes")
    return np.zeros((rows, columns), parts[name].bits.dtype)


def starts_of(parts: dict[str, Stored], name: str, count: int, end: int) -> np.ndarray:
    starts = take(parts, name, ("I64",), (count + 1,)).view("i8")
    need(starts[0] == 0 and starts[-1] == end, f"{name} ends")
    need(bool((starts[1:] >= starts[:-1]).all()), f"{name} decreases")
    return starts


def increasing(numbers: np.ndarray, limit: int) -> None:
    need(bool((numbers[1:] > numbers[:-1]).all()), "not increasing")
    need(not numbers.size or int(numbers[-1]) < limit, "out of range")


def bits_of(rows: np.ndarray, used: int) -> np.ndarray:
    bits = np.unpackbits(rows, axis=1, bitorder="little")
    need(not bits[:, used:].any(), "padding is not zero")
    return bits[:, :used]


def is_zero(bits: np.ndarray) -> np.ndarray:
    """Return which entries are zero, of either sign."""
    return bits << 1 == 0


def bitmask(parts: dict, rows: int, columns: int) -> Stored:
    only(parts, "bitmask", "values")
    mask = bits_of(take(parts, "bitmask", ("U8",), (rows, -(-columns // 8))), columns)
    values = take(parts, "values", FLOATS, (None,))
    need(int(mask.sum()) == values.size, "as many values as ones")
    dense = empty(parts, "values", rows, columns)
    dense[mask == 1] = values
    return Stored(parts["values"].dtype, dense)


def positions(parts: dict, rows: int, columns: int, n: int, m: int) -> Stored:
    only(parts, "indices", "values")
    need(1 <= n <= m <= 256 and columns % m == 0, "N:M")
    width, kept = max(1, math.ceil(math.log2(m))), columns // m * n
    stored = take(parts, "indices", ("U8",), (rows, -(-kept * width // 8)))
    values = take(parts, "values", FLOATS, (rows, kept))
    bits = bits_of(stored, kept * width).reshape(rows, columns // m, n, width)
    places = (bits * (1 << np.arange(width))).sum(-1)
    need(bool((places < m).all() and (places[..., 1:] > places[..., :-1]).all()), "positions")
    dense = empty(parts, "values", rows, columns)
    columns_of = (places + np.arange(columns // m)[:, None] * m).reshape(rows, kept)
    np.put_along_axis(dense, columns_of, values, axis=1)
    return Stored(parts["values"].dtype, dense)


def narrow_positions(parts: dict, rows: int, columns: int, n: int, m: int) -> Stored:
    need(columns <= 1 << 16, "columns of 16 bits")
    return positions(parts, rows, columns, n, m)


def two_of_four(parts: dict, rows: int, columns: int, n: int, m: int) -> Stored:
    need((n, m) == (2, 4), "semi-structured is 2:4")
    return positions(parts, rows, columns, n, m)


def grouped(parts: dict, rows: int, columns: int, n: int, m: int, chunk: int) -> Stored:
    only(parts, "counts", "indices", "values")
    need(1 <= n <= 2 and n <= m <= 16 and 1 <= chunk <= 256, "n:m:g")
    patterns = list(itertools.combinations(range(m), n))
    groups, chunks = -(-rows // m), -(-columns // chunk)
    counts = take(parts, "counts", ("U16",), (groups, chunks, len(patterns)))
    indices = take(parts, "indices", ("U8",), (groups, columns))
    values = take(parts, "values", FLOATS, (groups, columns, n))
    dense = empty(parts, "values", groups * m, columns)
    for group, part in itertools.product(range(groups), range(chunks)):
        first, last = part * chunk, min(columns, (part + 1) * chunk)
        need(int(counts[group, part].sum()) == last - first, "counts")
        need(sorted(indices[group, first:last]) == list(range(last - first)), "each column once")
        kinds = np.repeat(np.arange(len(patterns)), counts[group, part])
        for at, kind in zip(range(first, last), kinds, strict=True):
            for row, value in zip(patterns[kind], values[group, at], strict=True):
                dense[group * m + row, first + int(indices[group, at])] = value
    need(bool(is_zero(dense[rows:]).all()), "weights outside")
    return Stored(parts["values"].dtype, dense[:rows])


def csr(parts: dict, rows: int, columns: int) -> Stored:
    only(parts, "row_starts", "indices", "values")
    indices = take(parts, "indices", ("U16",), (None,))
    values = take(parts, "values", FLOATS, indices.shape)
    starts = starts_of(parts, "row_starts", rows, indices.size)
    dense = empty(parts, "values", rows, columns)
    for row in range(rows):
        here = slice(starts[row], starts[row + 1])
        increasing(indices[here], columns)
        dense[row, indices[here]] = values[here]
    return Stored(parts["values"].dtype, dense)


def constant(parts: dict, rows: int, columns: int, fan_in: int) -> Stored:
    only(parts, "indices", "values")
    need(fan_in <= min(columns, 1 << 16), "fan-in")
    indices = take(parts, "indices", ("U16",), (rows, fan_in))
    values = take(parts, "values", FLOATS, (rows, fan_in))
    dense = empty(parts, "values", rows, columns)
    for row in range(rows if fan_in else 0):
        increasing(indices[row], columns)
        dense[row, indices[row]] = values[row]
    return Stored(parts["values"].dtype, dense)


def blocks(parts: dict, rows: int, columns: int) -> Stored:
    only(parts, "row_starts", "places", "values")
    places = take(parts, "places", ("U16",), (None,))
    values = take(parts, "values", FLOATS, (places.size, 16, 32))
    high, wide = -(-rows // 16), -(-columns // 32)
    starts = starts_of(parts, "row_starts", high, places.size)
    dense = empty(parts, "values", high * 16, wide * 32)
    for row in range(high):
        here = range(starts[row], starts[row + 1])
        increasing(places[here.start : here.stop], wide)
        for at in here:
            column = int(places[at]) * 32
            dense[row * 16 : row * 16 + 16, column : column + 32] = values[at]
    need(bool(is_zero(dense[rows:]).all() and is_zero(dense[:, columns:]).all()), "outside")
    return Stored(parts["values"].dtype, dense[:rows, :columns])


def shrunk(parts: dict, rows: int, columns: int) -> Stored:
    only(parts, "rows", "columns", "values")
    kept = [take(parts, name, ("I64",), (None,)).view("i8") for name in ("rows", "columns")]
    values = take(parts, "values", FLOATS, (kept[0].size, kept[1].size))
    for numbers, limit in zip(kept, (rows, columns), strict=True):
        need(bool((numbers >= 0).all()), "negative")
        increasing(numbers, limit)
    dense = empty(parts, "values", rows, columns)
    dense[np.ix_(*kept)] = values
    return Stored(parts["values"].dtype, dense)


def row_groups(parts: dict, rows: int, columns: int, group: int) -> Stored:
    only(parts, "group_starts", "indices", "values", "order")
    need(1 <= group <= 1 << 16 and rows <= 1 << 16, "groups")
    indices = take(parts, "indices", ("U16",), (None,))
    values = take(parts, "values", FLOATS, (indices.size, group))
    order = take(parts, "order", ("U16",), (rows,))
    groups = -(-rows // group)
    starts = starts_of(parts, "group_starts", groups, indices.size)
    need(sorted(order) == list(range(rows)), "order")
    stored = empty(parts, "values", groups * group, columns)
    for at in range(groups):
        here = slice(starts[at], starts[at + 1])
        increasing(indices[here], columns)
        stored[at * group : (at + 1) * group, indices[here]] = values[here].T
    need(bool(is_zero(stored[rows:]).all()), "outside")
    dense = np.zeros_like(stored[:rows])
    dense[order] = stored[:rows]
    return Stored(parts["values"].dtype, dense)


def quantized(parts: dict, rows: int, columns: int) -> Stored:
    only(parts, "row_starts", "places", "codes", "scales", "zeros")
    places = take(parts, "places", ("U16",), (None,))
    codes = take(parts, "codes", ("U8",), (places.size, 8))
    take(parts, "scales", FLOATS, (places.size,))
    zeros = take(parts, "zeros", ("U8",), (places.size,))
    need(bool((zeros <= 15).all()), "zero points")
    wide = -(-columns // 16)
    starts = starts_of(parts, "row_starts", rows, places.size)
    levels = np.stack([codes & 15, codes >> 4], axis=-1).reshape(-1, 16).astype("f4")
    levels -= zeros[:, None].astype("f4")
    need(rows * wide * 16 <= MOST_DECODED, "larger than this reader decodes")
    dense = np.zeros((rows, wide * 16), "f4")
    outside = np.zeros((rows, wide * 16), bool)
    scales = floats(parts["scales"])
    for row in range(rows):
        here = range(starts[row], starts[row + 1])
        increasing(places[here.start : here.stop], wide)
        for at in here:
            column = int(places[at]) * 16
            outside[row, column : column + 16] = levels[at] != 0
            with np.errstate(all="ignore"):
                dense[row, column : column + 16] = levels[at] * scales[at]
    need(not outside[:, columns:].any(), "outside")
    return rounded(dense[:, :columns], parts["scales"].dtype)


def eight_bits(parts: dict, rows: int, columns: int) -> Stored:
    only(parts, "row_starts", "columns", "values", "scales")
    need(columns <= 1 << 16, "columns")
    places = take(parts, "columns", ("U16",), (None, 4))
    codes = take(parts, "values", ("I8",), (len(places), 4, 4)).view("i1")
    take(parts, "scales", FLOATS, (rows,))
    high, wide = -(-rows // 4), -(-columns // 4) * 4
    starts = starts_of(parts, "row_starts", high, len(places))
    need(high * 4 * wide <= MOST_DECODED, "larger than this reader decodes")
    dense = np.zeros((high * 4, wide), "f4")
    for row in range(high):
        here = slice(starts[row], starts[row + 1])
        increasing(places[here].reshape(-1), wide)
        for place, code in zip(places[here], codes[here], strict=True):
            dense[row * 4 : row * 4 + 4, place] = code
    need(not dense[rows:].any() and not dense[:, columns:].any(), "outside")
    with np.errstate(all="ignore"):
        return rounded(
            dense[:rows, :columns] * floats(parts["scales"])[:, None], parts["scales"].dtype
        )


def floats(stored: Stored) -> np.ndarray:
    """Return bfloat16 or float32 as float32."""
    if stored.dtype == "BF16":
        return (stored.bits.astype("u4") << 16).view("f4")
    need(stored.dtype == "F32", "scales are of the type of inputs and outputs")
    return stored.bits.view("f4")


def rounded(numbers: np.ndarray, dtype: str) -> Stored:
    """Return float32 in a type, rounded to nearest, ties to even; NaN in its usual form."""
    bits = np.ascontiguousarray(numbers, "f4").view("u4").copy()
    bits[np.isnan(numbers)] = 0x7FC00000
    if dtype == "F32":
        return Stored(dtype, bits)
    return Stored(dtype, ((bits + (0x7FFF + (bits >> 16 & 1))) >> 16).astype("u2"))


LAYOUTS = {
    "bitmask": ((), bitmask),
    "n:m": (("n", "m"), positions),
    "bank-balanced": (("n", "m"), narrow_positions),
    "semi-structured": (("n", "m"), two_of_four),
    "n:m:g": (("n", "m", "chunk"), grouped),
    "csr": ((), csr),
    "fan-in": (("fan_in",), constant),
    "blocks": ((), blocks),
    "shrunk": ((), shrunk),
    "row-groups": (("group",), row_groups),
    "group-sparse-4bit": ((), quantized),
    "int8-4x1": ((), eight_bits),
}
