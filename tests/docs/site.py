"""The built site has what it promises; `make docs` runs this after it has built it."""

import re
from pathlib import Path

from thresher.core.card import catalogue

SITE = Path(__file__).parents[2] / "docs" / "_build" / "html"


def test_every_method_has_a_page_that_leads_to_its_class():
    for name, method in catalogue().items():
        if not method.__module__.startswith("thresher."):
            continue
        page = (SITE / "methods" / f"{name}.html").read_text(encoding="utf-8")
        assert f"#{method.__module__}.{method.__qualname__}" in page


def test_the_example_shows_what_it_found():
    example = (SITE / "examples" / "nci60.html").read_text(encoding="utf-8")
    for figure in ("sphx_glr_nci60_001.png", "sphx_glr_nci60_002.png"):
        assert f'src="../_images/{figure}"' in example
        assert (SITE / "_images" / figure).stat().st_size > 10_000
    assert "64 tumours x 6830 genes, 8 melanomas" in example
    assert re.search(r"[1-9]\d* of 6830 genes at alpha", example)


def test_the_other_pages_on_real_data_say_what_they_found():
    said = {
        "golub": ["38 patients x 3051 genes, 11 AML", "genes reach a share of 60%"],
        "spam": ["4601 mails x 57 frequencies, 1813 spam", "of the good mails are lost"],
    }
    for page, lines in said.items():
        text = (SITE / "examples" / f"{page}.html").read_text(encoding="utf-8")
        assert all(line in text for line in lines)


def test_a_language_model_is_pruned_saved_and_loaded():
    text = (SITE / "examples" / "smollm2.html").read_text(encoding="utf-8")
    shares = {
        name: float(re.search(rf"{name} +[\d.]+, ([\d.]+) of dense", text)[1])
        for name in ("magnitude", "sparsegpt")
    }
    assert 1 < shares["sparsegpt"] < shares["magnitude"]
    dense, pruned = map(int, re.search(r"(\d+) MB dense, (\d+) MB pruned", text).groups())
    assert pruned < 0.75 * dense
    assert "pruned: My fellow Americans," in text
    assert (SITE / "_images" / "sphx_glr_smollm2_002.png").stat().st_size > 10_000


def test_docstrings_are_there():
    assert "Return the perplexity" in (SITE / "api/thresher.run.evaluate.html").read_text()
