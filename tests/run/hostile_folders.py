"""Folders whose headers, buffers and settings are whatever a test says, read within limits."""

from __future__ import annotations

import json
import math
import os
import resource
import signal
import struct
from collections.abc import Callable
from pathlib import Path

WEIGHT = "model.layers.0.self_attn.q_proj.weight"
HIDDEN = 64


def longs(*numbers: int) -> tuple[str, list[int], bytes]:
    return "I64", [len(numbers)], struct.pack(f"<{len(numbers)}q", *numbers)


def shorts(*numbers: int) -> tuple[str, list[int], bytes]:
    return "U16", [len(numbers)], struct.pack(f"<{len(numbers)}H", *numbers)


def floats(*numbers: float) -> tuple[str, list[int], bytes]:
    return "F32", [len(numbers)], struct.pack(f"<{len(numbers)}f", *numbers)


def write_shard(path: Path, tensors: dict[str, tuple[str, list[int], bytes]]) -> None:
    header, end = {}, 0
    for name, (dtype, shape, data) in tensors.items():
        offsets = [end, end + len(data)]
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": offsets}
        end = offsets[1]
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(t[2] for t in tensors.values()))


def diagonal() -> dict[str, tuple[str, list[int], bytes]]:
    """Buffers of the identity as CSR: a whole and valid weight."""
    every = range(HIDDEN)
    starts = range(HIDDEN + 1)
    return {
        "row_starts": longs(*starts),
        "indices": shorts(*every),
        "values": floats(*[1.0] * HIDDEN),
    }


def write_folder(
    path: Path,
    layout: str = "csr",
    shape: tuple[int, ...] = (HIDDEN, HIDDEN),
    buffers: dict[str, tuple[str, list[int], bytes]] | None = None,
    settings: dict | None = None,
    packed: bool = True,
    **entry: object,
) -> Path:
    """Write a Llama of one block, one of whose weights is packed in any way."""
    path.mkdir(parents=True, exist_ok=True)
    buffers = diagonal() if buffers is None else buffers
    h = HIDDEN
    sizes = {"model.embed_tokens.weight": (256, h), "model.norm.weight": (h,)}
    block = "model.layers.0."
    for name in ("self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"):
        sizes[f"{block}{name}.weight"] = (h, h)
    for name in ("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"):
        sizes[f"{block}{name}.weight"] = (h, h)
    for name in ("input_layernorm", "post_attention_layernorm"):
        sizes[f"{block}{name}.weight"] = (h,)
    tensors = {
        name: ("F32", list(size), struct.pack("<f", 0.01) * math.prod(size))
        for name, size in sizes.items()
    }
    tensors[f"{WEIGHT}_shape"] = longs(*shape)
    tensors |= {f"{WEIGHT}_{name}": buffer for name, buffer in buffers.items()}
    write_shard(path / "model.safetensors", tensors)
    listed = {
        "layout": layout,
        "settings": settings or {},
        "tensors": sorted(buffers),
        "weights": [WEIGHT],
    }
    quantization = {
        "quant_method": "thresher",
        "format_version": 1,
        "packed": packed,
        "layouts": [listed | entry],
    }
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": h,
        "intermediate_size": h,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "vocab_size": 256,
        "max_position_embeddings": 64,
        "tie_word_embeddings": True,
        "dtype": "float32",
        "quantization_config": quantization,
    }
    (path / "config.json").write_text(json.dumps(config))
    return path


def change_json(file: Path, change: Callable[[dict], object]) -> None:
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def within_limits(function: Callable[[], object], seconds: int = 60, mib: int = 1024) -> str:
    """Return what a function returns or raises, run in a process with limits on time and memory.

    The process may not take more than `mib` beyond what it has; a crash or the end of the time is
    returned as the name of the signal.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reading)
            os.environ["HF_DEACTIVATE_ASYNC_LOAD"] = "1"
            pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
            limit = pages * resource.getpagesize() + (mib << 20)
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(seconds)
            try:
                answer = f"returned {function()!r}"
            except BaseException as error:
                answer = f"{type(error).__name__}: {error}"
            os.write(writing, answer.encode(errors="replace")[:60_000])
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        answer = pipe.read().decode(errors="replace")
    _, status = os.waitpid(child, 0)
    return signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else answer
