"""The card that the hub shows is one that it reads, and speaks of the pruned model alone."""

import json
import re

import pytest
from huggingface_hub import ModelCard
from model_folders import tiny_llama

import thresher as th
from thresher.core.paths import hub_name, model_name
from thresher.report.model_card import write_card

SNAPSHOT = "/home/somebody/.cache/huggingface/hub/models--Owner--Some-Model.v2/snapshots/abc123"
DENSE = """---
license: apache-2.0
language: [en]
tags: [llama, sparse]
model-index: [{name: dense, results: []}]
---

# The dense model

It scores 99 %.
"""


@pytest.fixture
def folder(tmp_path):
    config = {
        "architectures": ["LlamaForCausalLM"],
        "quantization_config": {"quant_method": "thresher"},
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    return tmp_path


def test_it_keeps_what_the_dense_models_card_says_and_not_its_text(record, folder):
    (folder / "README.md").write_text(DENSE)
    record.model = SNAPSHOT
    for _ in range(2):  # written again, it stays the same
        write_card(record, folder)
        card = ModelCard.load(folder / "README.md")
        data = card.data.to_dict()
        assert data["license"] == "apache-2.0"
        assert data["language"] == ["en"]
        assert data["base_model"] == "Owner/Some-Model.v2"
        assert data["library_name"] == "transformers"
        assert data["tags"] == ["llama", "sparse", "thresher", "wanda"]
        assert "model-index" not in data
        assert "99 %" not in card.content
        assert card.text.lstrip().startswith("# Some-Model.v2, 49.56 % pruned by wanda\n")


def test_it_shows_what_was_measured_and_how_to_load_it(record, folder):
    record.calibration["source"] = "/home/somebody/notes.txt"
    record.parts = {"method": "wanda", "density": 0.5}
    write_card(record, folder)
    text = (folder / "README.md").read_text(encoding="utf-8")
    assert re.search(r"\| perplexity \| 20\b.* \| 45\b.* \| 2\.25x", text)
    assert "| weights on disk | 269.0 MB | 185.0 MB | 0.688x |" in text
    assert "This cut is costly" in text
    assert "import thresher" in text
    assert "AutoModelForCausalLM.from_pretrained" in text
    assert "source: notes.txt" in text
    assert "```yaml\nmethod: wanda\ndensity: 0.5\n```" in text
    assert "/home" not in text


def test_what_loads_without_thresher_is_shown_so_and_a_broken_card_is_no_obstacle(record, folder):
    (folder / "README.md").write_text("---\n: [\n---\n")
    (folder / "config.json").write_text('{"architectures": ["BertModel"]}')
    record.evaluation = {}
    write_card(record, folder)
    text = (folder / "README.md").read_text(encoding="utf-8")
    assert "import thresher" not in text
    assert "AutoModel.from_pretrained" in text
    assert "| dense |" not in text
    assert "base_model" not in text


def test_a_dense_export_keeps_the_data_and_not_how_the_sparse_folder_loads(record, tmp_path):
    model = tiny_llama(layers=1)
    th.prune(model, "magnitude", density=0.5, progress=False)
    th.save(model, tmp_path / "sparse")
    (tmp_path / "sparse" / "README.md").write_text(DENSE)
    write_card(record, tmp_path / "sparse")
    th.export(tmp_path / "sparse", tmp_path / "dense")
    card = ModelCard.load(tmp_path / "dense" / "README.md")
    assert card.data.to_dict()["license"] == "apache-2.0"
    assert "import thresher" not in card.content
    assert "stored dense" in card.text
    # A card of somebody else stays.
    (tmp_path / "sparse" / "README.md").write_text(DENSE)
    th.export(tmp_path / "sparse", tmp_path / "again")
    assert (tmp_path / "again" / "README.md").read_text() == DENSE


@pytest.mark.parametrize(
    ("folder", "name", "short"),
    [
        (SNAPSHOT, "Owner/Some-Model.v2", "Some-Model.v2"),
        (SNAPSHOT.replace("Owner--Some-Model.v2", "gpt2"), "gpt2", "gpt2"),
        ("models/tiny-llama", None, "tiny-llama"),
        ("Owner/Name", None, "Name"),
    ],
)
def test_a_model_is_called_by_its_name_and_not_by_its_commit(folder, name, short):
    assert (hub_name(folder), model_name(folder)) == (name, short)
