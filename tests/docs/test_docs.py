"""The documentation builds without a warning, and says what is true."""

import importlib
import importlib.util
import json
import re
from pathlib import Path

import pytest
import torch

from thresher.parts.patterns import NM
from thresher.run.files.writer import CheckpointWriter
from thresher.run.layouts.formats import pack

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"

NEEDED = ("sphinx", "furo", "myst_parser", "sphinx_gallery", "matplotlib")
needs_sphinx = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in NEEDED),
    reason='building the documentation needs `pip install -e ".[docs]"`',
)


@pytest.fixture(scope="module")
def pages():
    return importlib.import_module("generated_pages")


@needs_sphinx
@pytest.mark.parametrize(
    ("reproduced", "words"), [(True, "**Reproduced**"), (False, "**Not reproduced at this scale**")]
)
def test_evidence_is_shown_with_its_verdict(pages, reproduced, words):
    result = {
        "claim": "better than *magnitude*",
        "baseline": "magnitude",
        "reproduced": reproduced,
        "margin": 0.25,
        "summary": "perplexity 30 against 40",
        "table": [{"method": "wanda", "perplexity": 30.123456}],
        "versions": {"torch": "2.13.0"},
        "seeds": [0, 1],
    }
    section = pages.evidence_section("wanda", result)
    assert words in section
    assert "margin 0.25" in section
    assert "30.12" in section
    assert r"\*magnitude\*" in section
    assert "torch 2.13.0" in section

    assert "Rule" not in section
    result["slacks"] = {"faster than *dense*": 0.25, "as accurate": 1.5}
    section = pages.evidence_section("wanda", result)
    assert r":Rule, slack: faster than \*dense\* \(0.25\)\; as accurate \(1.5\)" in section


@needs_sphinx
def test_a_recorded_figure_is_a_picture_and_no_markup(pages):
    series = '{"name": "</svg><b>", "x": [1, 2], "y": [3, null]}'
    figure = f'{{"data": [{series}, {series}], "layout": {{}}}}'
    section = pages.figure_section("wanda", 'Half the weights suffice, they "say".', figure)
    assert section.count("</svg>") == 1
    assert "<b>" not in section
    assert "&quot;say&quot;" in section
    assert "&lt;/svg&gt;&lt;b&gt;: 1, 3" in section


@needs_sphinx
def test_every_part_that_is_called_by_name_is_listed(pages):
    page = pages.parts_page()
    for words in ("Budget\n", "``unstructured``, ``per-row``", "updates.obs.OBS`", "``cubic``"):
        assert words in page


@needs_sphinx
def test_every_command_and_option_is_on_one_page(pages):
    page = pages.command_page()
    for words in ("thresher prune\n", "thresher serve\n", "--push-to-hub OWNER/NAME", "--minutes"):
        assert words in page
    assert "compare-cell" not in page  # hidden


@needs_sphinx
def test_the_measured_table_is_that_of_the_results(pages):
    found = json.loads((ROOT / "benchmarks/results/quality-thresher.json").read_text())["cases"]
    row = pages.measured_table().partition("wanda`")[2].split()
    for cut in ("50", "70", "2:4"):
        assert f"{found[f'wanda-{cut}']['perplexity']:.4g}" in row[:6]


@needs_sphinx
def test_a_verdict_has_the_real_model_beside_it(pages):
    section = pages.evidence_section("wanda", pages.evidence_result("wanda"))
    head, _, row = section.partition("* - :doc:`/methods/wanda`")
    assert "**Not reproduced at this scale**" in head
    found = json.loads((ROOT / "benchmarks/results/quality-thresher.json").read_text())["cases"]
    assert f"{found['wanda-50']['perplexity']:.4g}" in row.split("* -")[0]
    assert "sparsegpt`" in row  # what it is held against
    assert "SmolLM2" not in pages.measured_section("owl")


@needs_sphinx
def test_a_method_without_evidence_says_so(pages):
    section = pages.evidence_section("magnitude", None)
    assert "None is recorded yet" in section
    assert "/methods/magnitude" in section


def test_the_guide_shows_wanda_as_it_is():
    (block,) = re.findall(r"```python\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), re.DOTALL)
    assert block == (ROOT / "thresher/prune/wanda.py").read_text()


def test_the_example_of_the_format_is_true():
    weight = torch.tensor([[0, 5, 0, 7, 1, 0, 0, 2], [3, 4, 0, 0, 0, 0, 8, 9]]).bfloat16()
    indexed = pack(weight, weight != 0, 4)
    assert indexed["_values"].tolist() == [[5, 7, 1, 2], [3, 4, 8, 9]]
    assert indexed["_indices"].tolist() == [[0xCD], [0xE4]]
    masked = pack(weight, weight != 0)
    assert masked["_bitmask"].tolist() == [[0x9A], [0xC3]]
    assert masked["_values"].shape == (8,)
    text = (DOCS / "format.md").read_text(encoding="utf-8")
    assert "`[[0xCD], [0xE4]]`" in text
    assert "`[[0x9A], [0xC3]]`" in text


@pytest.mark.parametrize("pattern", [NM(2, 4), NM(1, 4), NM(3, 8), NM(1, 3), NM(2, 16), None])
def test_the_reader_of_the_format_reads_what_is_written(tmp_path, pattern):
    """The reader in the specification uses nothing of Thresher."""
    torch.manual_seed(0)
    shape = (5, 48) if pattern else (6, 7, 3, 3)
    weight = torch.randn(shape).bfloat16()
    mask = pattern.mask(weight.abs().float(), 5 * 48 * pattern.n // pattern.m) if pattern else None
    mask = weight > 0.3 if mask is None else mask
    group = pattern.m if pattern else None
    writer = CheckpointWriter(tmp_path / "model", tmp_path)
    writer.add(0, {"a.weight": weight * mask, "a.bias": torch.ones(5)}, {"a.weight": mask})
    names = {}
    exec(_reader(), names)
    shard = next((tmp_path / "model").glob("*.safetensors"))
    found = names["read_shard"](shard, group)
    assert set(found) == {"a.weight", "a.bias"}
    assert torch.equal(found["a.weight"], weight * mask)


def _reader() -> str:
    text = (DOCS / "format.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    (code,) = [block for block in blocks if "def read_shard" in block]
    return code
