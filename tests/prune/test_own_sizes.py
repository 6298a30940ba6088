"""Folders of models whose blocks have sizes of their own: they load where Thresher is imported."""

import json

import pytest
import torch
import warm
from model_folders import save_folder
from small_models import bert, encoder_inputs, gpt2, llama, tokens

import thresher as th
from thresher.core.errors import CheckpointError, LayerError
from thresher.parts.groups.sizes import SIZES_KEY
from thresher.stream.outputs import folder_logits


def outputs(model, sample):
    with torch.no_grad():
        return model(sample)[0]


def smaller(model, method="flap", density=0.6):
    data = encoder_inputs() if type(model).__name__ == "BertModel" else tokens()
    return th.prune(model, method, data, density=density, progress=False)


@pytest.fixture(scope="module")
def small():
    return smaller(llama(hidden_size=32, intermediate_size=96, tied=True))


@pytest.fixture(scope="module")
def folder(small, tmp_path_factory):
    return save_folder(small, tmp_path_factory.mktemp("sizes") / "small")


def widths(model):
    return {tuple(block.mlp.down_proj.weight.shape) for block in model.model.layers}


@pytest.mark.parametrize("make", [llama, gpt2, bert])
@pytest.mark.parametrize("method", ["flap", "slimgpt"])
def test_a_model_is_what_it_was_when_it_is_loaded(make, method, tmp_path):
    small = smaller(make(), method)
    th.save(small, tmp_path / "small")
    loaded = type(small).from_pretrained(tmp_path / "small").eval()
    assert loaded.state_dict().keys() == small.state_dict().keys()
    torch.testing.assert_close(
        outputs(loaded, tokens(1)), outputs(small, tokens(1)), rtol=0, atol=0
    )


def test_it_is_loaded_as_its_base_and_in_another_dtype(small, folder):
    from transformers import AutoModel, AutoModelForCausalLM

    base = AutoModel.from_pretrained(folder).eval()
    torch.testing.assert_close(outputs(base, tokens(1)), outputs(small.model, tokens(1)))
    half = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    assert {p.dtype for p in half.parameters()} == {torch.bfloat16}
    assert half.lm_head.weight is half.model.embed_tokens.weight
    assert widths(half) == widths(small) != {(32, 96)}


def test_it_is_read_from_disk_block_by_block(small, folder):
    windows = torch.arange(2 * 16).reshape(2, 16) % 40
    for found, window in zip(folder_logits(folder, windows), windows, strict=True):
        torch.testing.assert_close(
            found[:].squeeze(0), outputs(small, window[None])[0, :-1], rtol=1e-4, atol=1e-5
        )


def test_it_is_pruned_and_made_smaller_again(small, folder, tmp_path):
    from transformers import AutoModelForCausalLM

    loaded = AutoModelForCausalLM.from_pretrained(folder).eval()
    th.prune(loaded, "magnitude", density=0.5, progress=False)
    th.save(loaded, tmp_path / "sparse")
    sparse = AutoModelForCausalLM.from_pretrained(tmp_path / "sparse").eval()
    torch.testing.assert_close(outputs(sparse, tokens(1)), outputs(loaded, tokens(1)))
    less = smaller(small, "slimgpt", 0.8)
    less.save_pretrained(tmp_path / "less")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "less").eval()
    assert widths(again) == widths(less) != widths(small)
    torch.testing.assert_close(outputs(again, tokens(1)), outputs(less, tokens(1)))


def test_without_thresher_it_is_an_error(folder):
    script = (
        "import sys, transformers\n"
        "try:\n"
        f"    transformers.AutoModelForCausalLM.from_pretrained({str(folder)!r})\n"
        "except RuntimeError:\n"
        "    assert 'thresher' not in sys.modules\n"
        "else:\n"
        "    raise SystemExit('it was loaded with other shapes')\n"
    )
    assert warm.run("-c", script, check=False).returncode == 0


def test_what_runs_blocks_of_one_size_refuses_it(small, folder, tmp_path):
    with pytest.raises(LayerError, match="sizes of their own"):
        th.Engine(small, 8)
    with pytest.raises(LayerError, match="sizes of their own"):
        th.Engine(folder, 8)


@pytest.mark.parametrize(
    ("held", "message"),
    [
        ("wide", "expected a list of objects"),
        ([{"module": "model"}], "expected a list of objects"),
        ([{"module": "", "name": "x", "value": -1, "of_config": False}], "expected a list"),
        ([{"module": "", "name": "no_size", "value": 3, "of_config": False}], "no such number"),
        ([{"module": "gone", "name": "x", "value": 3, "of_config": False}], "no such number"),
        ([{"module": "", "name": "training", "value": 3, "of_config": False}], "no such number"),
    ],
)
def test_damaged_sizes_are_named(folder, tmp_path, held, message):
    from transformers import AutoModelForCausalLM

    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((folder / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {SIZES_KEY: held}))
    with pytest.raises(CheckpointError, match=message):
        AutoModelForCausalLM.from_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=message):
        next(folder_logits(tmp_path, tokens(1)))
