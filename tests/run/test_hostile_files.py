"""Files that are made to crash, to exhaust memory, to hang or to be misread."""

from __future__ import annotations

import json
import os
import struct
import sys
from pathlib import Path

import pytest
import torch
from hostile_folders import (
    HIDDEN,
    WEIGHT,
    change_json,
    diagonal,
    floats,
    longs,
    shorts,
    within_limits,
    write_folder,
    write_shard,
)
from model_folders import tiny_llama
from transformers import AutoModelForCausalLM, MixtralConfig, MixtralForCausalLM

import thresher as th
from thresher.core.errors import CheckpointError
from thresher.run.files import checkpoint
from thresher.run.files.checkpoint import Checkpoint
from thresher.run.files.companions import leads_inside
from thresher.run.files.float8 import Float8
from thresher.run.files.names import check_fit
from thresher.run.layouts import formats
from thresher.run.skeleton import Skeleton
from thresher.stream.state import RunState
from thresher.workflow import read_record

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits processes as Linux does")

BIG = (2**33, 2**40, 2**53, 2**62, 2**63 - 1)


@pytest.fixture(scope="module", autouse=True)
def imported(tmp_path_factory):
    """Import what a model needs, once and not in every process with limits."""
    load(write_folder(tmp_path_factory.mktemp("whole")))


def load(folder: Path, **options):
    return AutoModelForCausalLM.from_pretrained(folder, **options)


def unpack(folder: Path) -> torch.Tensor:
    return Checkpoint(folder).tensor(WEIGHT)


def refused_by_both(folder: Path, *words: str) -> None:
    """Both readers refuse the folder cleanly, in bounded time and memory."""
    for reader in (load, unpack, Skeleton):
        answer = within_limits(lambda reader=reader: reader(folder))
        assert answer.startswith("CheckpointError: "), answer
        assert all(word in answer for word in words), answer


def none(dtype: str, *shape: int) -> tuple[str, list[int], bytes]:
    return dtype, list(shape), b""


OVERSIZED = {
    "n:m": ({"indices": none("U8", 0), "values": none("F32", 0)}, {"n": 2, "m": 4}),
    "bank-balanced": ({"indices": none("U8", 0), "values": none("F32", 0)}, {"n": 2, "m": 64}),
    "semi-structured": ({"indices": none("U8", 0), "values": none("F32", 0)}, {"n": 2, "m": 4}),
    "bitmask": ({"bitmask": none("U8", 0), "values": none("F32", 0)}, {}),
    "fan-in": ({"indices": none("U16", 0), "values": none("F32", 0)}, {"fan_in": 0}),
    "csr": ({"row_starts": longs(0), "indices": shorts(), "values": floats()}, {}),
    "blocks": (
        {"row_starts": longs(0), "places": shorts(), "values": none("F32", 0, 16, 32)},
        {},
    ),
    "shrunk": ({"rows": longs(), "columns": longs(), "values": none("F32", 0, 0)}, {}),
    "int8-4x1": (
        {
            "row_starts": longs(0),
            "columns": none("U16", 0, 4),
            "values": none("I8", 0, 4, 4),
            "scales": none("F32", 0),
        },
        {},
    ),
    "group-sparse-4bit": (
        {
            "row_starts": longs(0),
            "places": shorts(),
            "codes": none("U8", 0, 8),
            "scales": floats(),
            "zeros": none("U8", 0),
        },
        {},
    ),
    "n:m:g": (
        {"counts": none("U16", 0), "indices": none("U8", 0), "values": none("F32", 0)},
        {"n": 2, "m": 4, "chunk": 256},
    ),
    "row-groups": (
        {
            "group_starts": longs(0),
            "indices": shorts(),
            "values": none("F32", 0, 4),
            "order": shorts(),
        },
        {"group": 4},
    ),
}


@pytest.mark.parametrize("layout", sorted(OVERSIZED))
def test_sizes_that_overflow_or_exhaust_memory_are_refused(layout, tmp_path):
    buffers, settings = OVERSIZED[layout]
    shapes = [shape for rows in BIG for shape in ((rows, HIDDEN), (HIDDEN, rows), (rows, 0))]
    folders = [
        write_folder(tmp_path / str(number), layout, shape, buffers, settings)
        for number, shape in enumerate([*shapes, (2**32, 2**32), (2**31, 2**31, 4)])
    ]
    for folder in folders:
        answer = within_limits(lambda f=folder: unpack(f))
        assert answer.startswith("CheckpointError: "), answer
        assert WEIGHT in answer
    for folder in folders[::5]:
        answer = within_limits(lambda f=folder: load(f))
        assert answer.startswith("CheckpointError: "), answer
        assert WEIGHT in answer


@pytest.mark.parametrize("layout", ["shrunk", "fan-in"])
def test_a_weight_is_compared_with_the_model_before_it_is_unpacked(layout, tmp_path):
    """Gigabytes from 70 kB: 2**14 x 2**15 of nothing."""
    buffers, settings = OVERSIZED[layout]
    if layout == "fan-in":
        buffers = {"indices": none("U16", 2**14, 0), "values": none("F32", 2**14, 0)}
    for packed in (False, True):
        folder = write_folder(
            tmp_path / str(packed), layout, (2**14, 2**15), buffers, settings, packed
        )
        refused_by_both(folder, WEIGHT)
        with pytest.raises(CheckpointError, match=r"shape \(16384, 32768\).*expects \(64, 64\)"):
            load(folder)
    answer = within_limits(lambda: load(folder, ignore_mismatched_sizes=True))
    assert answer.startswith("CheckpointError: "), answer


def test_a_large_weight_that_is_empty_is_read_where_the_model_has_it(tmp_path):
    """All of a layer may be pruned: what fits the model is right, however few bytes say it."""
    buffers, settings = OVERSIZED["shrunk"]
    folder = write_folder(tmp_path, "shrunk", (HIDDEN, HIDDEN), buffers, settings, packed=False)
    assert not load(folder).model.layers[0].self_attn.q_proj.weight.any()
    assert not unpack(folder).any()


@pytest.mark.parametrize(
    ("layout", "settings"),
    [
        ("n:m", {"n": 2, "m": 2**31}),
        ("n:m", {"n": -1, "m": 4}),
        ("n:m", {"n": 0, "m": 4}),
        ("n:m", {"n": 2, "m": 0}),
        ("n:m", {"n": 2}),
        ("n:m", {"n": 2, "m": 4, "more": 1}),
        ("n:m", {"n": 2, "m": "4"}),
        ("n:m", {"n": 2.0, "m": 4}),
        ("n:m", {"n": True, "m": 4}),
        ("n:m", {"n": 2**70, "m": 4}),
        ("fan-in", {"fan_in": 2**40}),
        ("fan-in", {"fan_in": -1}),
        ("n:m:g", {"n": 2, "m": 4, "chunk": 0}),
        ("n:m:g", {"n": 2, "m": 40, "chunk": 4}),
        ("n:m:g", {"n": 3, "m": 4, "chunk": 4}),
        ("row-groups", {"group": 0}),
        ("row-groups", {"group": 2**62}),
        ("csr", {"n": 1}),
    ],
)
def test_settings_without_bounds_are_refused(layout, settings, tmp_path):
    buffers, _ = OVERSIZED[layout]
    refused_by_both(write_folder(tmp_path, layout, (64, 64), buffers, settings))


def test_a_size_that_is_bounded_by_no_buffer_is_bounded():
    for shape in ((1, 0, 2**40, 2**40), (0, 2**25), (2**25, 0), (2**20, 2**20, 2**20), (-1, 0)):
        with pytest.raises(CheckpointError, match=r"w_shape.*is not possible"):
            formats.shape_of("w", torch.tensor(shape))


def test_a_merged_weight_has_no_more_entries_than_the_model():
    """Experts are stored one by one: their own shape is nowhere in the model."""
    model = MixtralForCausalLM(
        MixtralConfig(
            vocab_size=32,
            hidden_size=8,
            intermediate_size=8,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=2,
            num_local_experts=2,
        )
    )
    name = "model.layers.0.block_sparse_moe.experts.1.w1.weight"
    check_fit(model, {name: torch.empty(8, 8, device="meta")}, exact=True)
    with pytest.raises(CheckpointError, match="more entries than the whole model"):
        check_fit(model, {name: torch.empty(2**20, 2**20, device="meta")}, exact=True)


def test_what_the_model_vouches_for_may_be_of_any_size(tmp_path, monkeypatch):
    folder = write_folder(tmp_path, packed=False)
    monkeypatch.setattr(checkpoint, "_HARMLESS", 0)
    monkeypatch.setattr(checkpoint, "_EXPANSION", 0)
    with pytest.raises(CheckpointError, match="would take 16,384 bytes unpacked"):
        unpack(folder)
    assert torch.equal(load(folder).model.layers[0].self_attn.q_proj.weight, torch.eye(HIDDEN))
    skeleton = Skeleton(folder)
    assert torch.equal(skeleton.checkpoint.tensor(WEIGHT), torch.eye(HIDDEN))


def test_names_are_no_regular_expressions(tmp_path):
    folder = write_folder(
        tmp_path, buffers={"a" * 40: ("U8", [1], b"x")}, tensors=["(a+)+!"], packed=False
    )
    for reader in (load, unpack):
        answer = within_limits(lambda r=reader: r(folder), seconds=30)
        assert answer.startswith("CheckpointError: "), answer
    names = ["(a+)+!", "[", "\\1", "a" * 10_000, "*"]
    folder = write_folder(tmp_path / "weights", weights=[WEIGHT, *names])
    assert within_limits(lambda: type(load(folder)).__name__) == "returned 'LlamaForCausalLM'"


def rewrite(folder: Path, change) -> None:
    """Change the tensors of a folder's only file."""
    file = folder / "model.safetensors"
    content = file.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    data = content[8 + length :]
    tensors = {
        name: (entry["dtype"], entry["shape"], data[slice(*entry["data_offsets"])])
        for name, entry in json.loads(content[8 : 8 + length]).items()
    }
    change(tensors)
    write_shard(file, tensors)


@pytest.mark.parametrize("lost", ["shape", "row_starts", "indices", "values"])
@pytest.mark.parametrize("new", [None, f"{WEIGHT}_shapx", f"{WEIGHT}_", "elsewhere"])
@pytest.mark.parametrize("packed", [True, False])
def test_a_weight_without_one_of_its_tensors_is_never_random(lost, new, packed, tmp_path):
    folder = write_folder(tmp_path, packed=packed)

    def lose(tensors):
        tensor = tensors.pop(f"{WEIGHT}_{lost}")
        if new is not None:
            tensors[new] = tensor

    rewrite(folder, lose)
    refused_by_both(folder, WEIGHT, lost)


@pytest.mark.parametrize(
    "kept", [("values", "bitmask"), ("values", "indices"), ("shape", "values")]
)
def test_an_unlisted_weight_without_one_of_its_tensors_is_never_random(kept, tmp_path):
    folder = write_folder(tmp_path, packed=False)
    change_json(folder / "config.json", lambda c: c["quantization_config"].pop("layouts"))
    parts = {
        "values": floats(*[1.0] * HIDDEN**2),
        "bitmask": ("U8", [HIDDEN, HIDDEN // 8], b"\xff" * (HIDDEN**2 // 8)),
        "indices": ("U8", [HIDDEN, 1], bytes(HIDDEN)),
        "shape": longs(HIDDEN, HIDDEN),
    }

    def keep(tensors):
        for name in [n for n in tensors if n.startswith(f"{WEIGHT}_")]:
            del tensors[name]
        tensors |= {f"{WEIGHT}_{name}": parts[name] for name in kept}

    rewrite(folder, keep)
    refused_by_both(folder, WEIGHT)


def test_tensors_that_no_weight_claims_are_refused(tmp_path):
    folder = write_folder(tmp_path)
    rewrite(folder, lambda tensors: tensors.update({f"{WEIGHT}_more": floats(1.0)}))
    refused_by_both(folder, f"{WEIGHT}_more")
    rewrite(folder, lambda tensors: tensors.update({f"{WEIGHT}_more": floats()}))
    folder = write_folder(tmp_path / "both")
    dense = ("F32", [HIDDEN, HIDDEN], bytes(4 * HIDDEN**2))
    rewrite(folder, lambda tensors: tensors.update({WEIGHT: dense}))
    refused_by_both(folder, "both packed and as it is")


def write_index(folder: Path, file: object, **more: object) -> None:
    """Let an index say that all tensors of the only file are in another one."""
    names = list(Checkpoint(folder)._files)
    index = {"metadata": {}, "weight_map": dict.fromkeys(names, file)} | more
    (folder / "thresher.safetensors.index.json").write_text(json.dumps(index))
    change_json(folder / "config.json", lambda c: c.update(transformers_weights="import thresher"))


@pytest.mark.parametrize(
    "where",
    [
        *(
            "../secret.safetensors",
            "{outside}",
            "sub/../../secret.safetensors",
            "{inside}",
            "folder/../model.safetensors",
        ),
        *("..\\secret.safetensors", "C:\\secret.safetensors", "x\0y", "", ".", "..", "/"),
        *("pipe", "../pipe", "link", "loop", "device", "folder", "missing", 1, None, ["x"], {}),
    ],
)
def test_an_index_leads_to_regular_files_of_its_folder(where, tmp_path):
    folder = write_folder(tmp_path / "model")
    places = {"outside": tmp_path / "secret.safetensors", "inside": folder / "model.safetensors"}
    write_index(
        folder,
        where.format(**places) if type(where) is str else where,
    )
    (tmp_path / "secret.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    for place in (folder, tmp_path):
        os.mkfifo(place / "pipe")
    (folder / "link").symlink_to(tmp_path / "secret.safetensors")
    (folder / "loop").symlink_to("loop")
    (folder / "device").symlink_to("/dev/zero")
    (folder / "folder").mkdir()
    refused_by_both(folder)
    with pytest.raises(CheckpointError, match=r"no file of the folder|no regular file|leads out"):
        Checkpoint(folder)


def test_links_into_the_cache_of_the_hub_are_followed(tmp_path):
    cache = tmp_path / "models--me--small"
    folder = write_folder(cache / "snapshots" / "0123abc")
    (cache / "blobs").mkdir()
    blob = cache / "blobs" / "fedcba"
    (folder / "model.safetensors").rename(blob)
    (folder / "model.safetensors").symlink_to("../../blobs/fedcba")
    assert leads_inside(folder / "model.safetensors", folder)
    assert torch.equal(unpack(folder), torch.eye(HIDDEN))
    load(folder)


def test_links_into_the_blobs_that_models_share_are_followed(tmp_path):
    repository = tmp_path / "models--me--small"
    folder = write_folder(repository / "snapshots" / "0123abc")
    shared = tmp_path / "blobs" / "fe"
    for place in (repository / "blobs", shared):
        place.mkdir(parents=True)
    (folder / "model.safetensors").rename(shared / "fedcba")
    (repository / "blobs" / "fedcba").symlink_to("../../blobs/fe/fedcba")
    (folder / "model.safetensors").symlink_to("../../blobs/fedcba")
    assert leads_inside(folder / "model.safetensors", folder)
    assert torch.equal(unpack(folder), torch.eye(HIDDEN))
    # Beside a folder that is none of such a cache, files are somebody else's.
    plain = write_folder(tmp_path / "mine" / "snapshots" / "0123abc")
    (plain / "model.safetensors").unlink()
    (plain / "model.safetensors").symlink_to(shared / "fedcba")
    assert not leads_inside(plain / "model.safetensors", plain)


@pytest.mark.parametrize(
    "file", ["model.safetensors", "config.json", "thresher.safetensors.index.json"]
)
def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(file, tmp_path):
    folder = write_folder(tmp_path)
    (folder / file).unlink(missing_ok=True)
    os.mkfifo(folder / file)
    answer = within_limits(lambda: list(Checkpoint(folder)), seconds=20)
    assert answer.startswith("CheckpointError: ") or file == "config.json", answer
    assert "SIG" not in answer


def test_a_tensor_in_two_files_is_refused(tmp_path):
    folder = write_folder(tmp_path)
    names = list(Checkpoint(folder)._files)
    for number in (0, 1):
        (folder / f"thresher-0000{number}.safetensors").write_bytes(
            (folder / "model.safetensors").read_bytes()
        )
    places = {name: f"thresher-0000{i % 2}.safetensors" for i, name in enumerate(names)}
    index = {"metadata": {}, "weight_map": places}
    (folder / "thresher.safetensors.index.json").write_text(json.dumps(index))
    change_json(folder / "config.json", lambda c: c.update(transformers_weights="import thresher"))
    refused_by_both(folder, "thresher-00000", "thresher-00001")


DEEP = b"[" * 200_000
BROKEN = [
    b"{",
    b"[]",
    b"\xff\xfe{}",
    DEEP,
    b"",
    b"null",
    b'"x"',
    b"3",
    b'{"a":' * 100_000,
    b"9" * 5000,
]


@pytest.mark.parametrize("content", BROKEN, ids=range(len(BROKEN)))
def test_broken_json_is_one_clean_error(content, tmp_path):
    folder = write_folder(tmp_path / "model")
    for name, read in {
        "config.json": Checkpoint,
        "thresher.safetensors.index.json": Checkpoint,
        "progress.json": RunState.load,
    }.items():
        place = folder / name
        before = place.read_bytes() if place.is_file() else None
        place.write_bytes(content)
        with pytest.raises(CheckpointError, match=name):
            read(folder)
        place.unlink() if before is None else place.write_bytes(before)
    (folder / "thresher.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"thresher\.json|no record"):
        read_record(folder)


@pytest.mark.parametrize(
    "change",
    [
        {"quantization_config": "thresher"},
        {"quantization_config": [4]},
        {"quantization_config": {"quant_method": "thresher"}},
        {"format_version": True},
        {"format_version": "1"},
        {"format_version": 1.0},
        {"packed": "yes"},
        {"packed": 1},
        {"group": "x"},
        {"group": [4]},
        {"group": 0},
        {"group": 2**70},
        {"group": 4.0},
        {"layouts": 5},
        {"layouts": {}},
        {"layouts": [3]},
        {"layouts": [{}]},
    ],
)
def test_damaged_configurations_are_one_clean_error(change, tmp_path):
    folder = write_folder(tmp_path)
    whole = "quantization_config" in change
    change_json(
        folder / "config.json", lambda c: (c if whole else c["quantization_config"]).update(change)
    )
    answers = [within_limits(lambda: list(Checkpoint(folder)))]
    if not whole:
        answers.append(within_limits(lambda: load(folder)))
    assert all(answer.startswith("CheckpointError: ") for answer in answers), answers


@pytest.mark.parametrize("key", ["layout", "settings", "tensors", "weights"])
@pytest.mark.parametrize(
    "value", [3, None, "x", {"x": "y"}, ["x", "x"], [1], [[]], ["shape"], [""], {"n": 1.5}]
)
def test_damaged_entries_of_layouts_are_one_clean_error(key, value, tmp_path):
    folder = write_folder(tmp_path)
    change_json(
        folder / "config.json",
        lambda c: c["quantization_config"]["layouts"][0].update({key: value}),
    )
    answers = [within_limits(lambda r=reader: r(folder)) for reader in (unpack, load)]
    assert all(answer.startswith("CheckpointError: ") for answer in answers), answers


def test_a_weight_that_is_listed_twice_is_refused(tmp_path):
    folder = write_folder(tmp_path)

    def repeat(config):
        layouts = config["quantization_config"]["layouts"]
        layouts.append(layouts[0] | {"layout": "bitmask"})

    change_json(folder / "config.json", repeat)
    refused_by_both(folder, WEIGHT, "twice")


@pytest.mark.parametrize("index", [{"weight_map": None}, {"weight_map": [1]}, {"metadata": 3}])
def test_damaged_indices_are_one_clean_error(index, tmp_path):
    folder = write_folder(tmp_path)
    write_index(folder, "model.safetensors", **index)
    refused_by_both(folder, "thresher.safetensors.index.json")


@pytest.mark.parametrize(
    "change",
    [{"layers": None}, {"layers": [3]}, {"layers": [{}]}, {"timings": {"x": "y"}}, {"model": 3}],
)
def test_a_damaged_record_or_state_is_one_clean_error(change, tmp_path):
    model = tiny_llama()
    record = th.prune(model, "magnitude", density=0.5, progress=False)
    (tmp_path / "thresher.json").write_text(record.to_json())
    change_json(tmp_path / "thresher.json", lambda c: c.update(change))
    with pytest.raises(CheckpointError, match=r"thresher\.json.*not a pruning record"):
        read_record(tmp_path)
    RunState("x").save(tmp_path)
    change_json(tmp_path / "progress.json", lambda c: c.update(next="1"))
    with pytest.raises(CheckpointError, match=r"RunState\.next is str, expected int"):
        RunState.load(tmp_path)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("hidden_size", "x"),
        ("num_attention_heads", 0),
        ("hidden_size", []),
        ("hidden_act", "nothing"),
    ],
)
def test_a_configuration_of_no_model_is_one_clean_error(key, value, tmp_path):
    folder = write_folder(tmp_path)
    change_json(folder / "config.json", lambda c: c.update({key: value}))
    answer = within_limits(lambda: Skeleton(folder))
    assert answer.startswith("CheckpointError: "), answer


def test_a_file_that_changes_under_a_loaded_model_changes_nothing(tmp_path):
    folder = write_folder(tmp_path)
    model, file = load(folder), folder / "model.safetensors"
    ids = torch.arange(5)[None]
    with torch.no_grad():
        before = model(ids).logits
    content = file.read_bytes()
    file.write_bytes(content[:8] + b"\xff" * (len(content) - 8))
    with torch.no_grad():
        assert torch.equal(model(ids).logits, before)
    os.truncate(file, 100)
    with torch.no_grad():
        answer = within_limits(lambda: torch.equal(model(ids).logits, before))
    assert answer == "returned True"


def test_a_file_that_is_cut_short_while_it_is_read_is_refused(tmp_path):
    folder = write_folder(tmp_path)
    shards = Checkpoint(folder)

    def read():
        with shards.opened():
            shards.outline(WEIGHT)
            os.truncate(folder / "model.safetensors", 4096)
            return shards.tensor(WEIGHT)

    answer = within_limits(read)
    assert answer.startswith("CheckpointError: "), answer
    assert "changed or corrupted" in answer


def test_a_model_is_saved_into_the_folder_it_came_from(tmp_path):
    folder = write_folder(tmp_path)
    model = load(folder)
    model.save_pretrained(folder)
    again = load(folder)
    assert type(again.model.layers[0].self_attn.q_proj).__name__ == "PackedLinear"
    for (name, tensor), other in zip(
        model.state_dict().items(), again.state_dict().values(), strict=True
    ):
        assert torch.equal(tensor, other), name


def test_another_dtype_than_kernels_have_is_named_with_the_remedy(tmp_path):
    folder = write_folder(tmp_path)
    with pytest.raises(CheckpointError, match=r"loaded in torch\.float16.*dtype=torch\.bfloat16"):
        load(folder, dtype=torch.float16)
    change_json(folder / "config.json", lambda c: c.update(dtype="float64"))
    with pytest.raises(CheckpointError, match=r"loaded in torch\.float64"):
        load(folder)
    change_json(folder / "config.json", lambda c: c["quantization_config"].update(packed=False))
    assert load(folder).model.layers[0].self_attn.q_proj.weight.dtype == torch.float64


@pytest.mark.parametrize("block", [[], [128], [0, 128], [128, -1], ["1", 2], 128, [2.0, 2], {}])
def test_blocks_of_8_bit_floats_are_checked(block):
    with pytest.raises(CheckpointError, match="weight_block_size"):
        Float8.from_config({"quant_method": "fp8", "weight_block_size": block}, torch.bfloat16)


def test_a_block_larger_than_the_weight_takes_no_memory():
    weight = torch.ones(4, 4).to(torch.float8_e4m3fn)
    for block in ((2**40, 2**40), (2, 2**40)):
        scale = torch.full((-(-4 // block[0]), 1), 3.0)
        dense = Float8(block, torch.float32).dequantize("w", weight, scale)
        assert torch.equal(dense, torch.full((4, 4), 3.0))


def test_diagonal_is_read():
    """What the other tests damage is whole."""
    assert set(diagonal()) == {"row_starts", "indices", "values"}
