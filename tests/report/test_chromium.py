"""The report in a real browser: it complains of nothing, and everybody can read it."""

import json
import re
from html import unescape
from importlib.resources import files
from pathlib import Path

import pytest

from thresher.prune.record import PruneRecord
from thresher.report.html import render, write_report

from .chromium import find_chromium, open_page, take_picture
from .test_answers import SPEED

pytestmark = [
    pytest.mark.usefixtures("pictures"),
    pytest.mark.skipif(
        find_chromium() is None,
        reason="no Chromium on this machine; `apt-get install chromium` provides one",
    ),
]
ARTIFACTS = Path(__file__).parents[2] / "artifacts"

# Tells what a reader would see; the page itself lets no script run.
_PROBE = """
<script>addEventListener("load", () => {
  const charts = [...document.querySelectorAll("figure svg")];
  const style = element => getComputedStyle(element);
  const seen = {
    card: style(document.querySelector("figure")).backgroundColor,
    words: charts.flatMap(chart =>
      [...chart.querySelectorAll("text")].map(text => style(text).fill)),
    fonts: charts.map(chart => style(chart.querySelector("text")).fontFamily),
    sticksOut: document.documentElement.scrollWidth > innerWidth,
    smallest: Math.min(...[...document.querySelectorAll("figure text")].map(text =>
      parseFloat(style(text).fontSize) * text.getScreenCTM().a || Infinity)),
  };
  document.body.dataset.seen = JSON.stringify(seen);
  parent.postMessage(JSON.stringify(seen), "*");
})</script></body>
"""
_AXE = """
<script>%s</script>
<script>
document.querySelectorAll("details").forEach(details => details.open = true);
axe.run().then(found => document.body.dataset.seen = JSON.stringify({
  passes: found.passes.length,
  violations: found.violations.map(each => [each.id, each.nodes.map(node => node.html)]),
}));
</script></body>
"""
# A window cannot be as narrow as a phone, a frame can.
_PHONE = """
<body><script>addEventListener("message", event => document.body.dataset.seen = event.data)</script>
<iframe src="probed.html" style="width:390px;height:12000px;border:0"></iframe></body>
"""


@pytest.fixture
def record(record):
    sample = {"prompt": "To be or", "text": " not to be", "dense": " not", "pruned": " or or or"}
    record.evaluation["samples"] = [sample] * 3
    losses = {"dense_losses": [3.0, 3.1], "pruned_losses": [3.8, 3.9]}
    record.evaluation |= losses
    record.speed, record.tasks = SPEED, {"pruned": {"arc_easy": {"accuracy": 0.5}}}
    record.layers[-1].error = 1e-6
    return record


@pytest.fixture
def page(record, tmp_path):
    path = tmp_path / "report.html"
    write_report(record, path)
    return path


def probed(text: str, path: Path, probe: str) -> Path:
    """Write a page that runs a script."""
    assert text.count("</body>") == 1
    allowed = text.replace("default-src 'none';", "default-src 'none'; script-src 'unsafe-inline';")
    assert allowed != text
    path.write_text(allowed.replace("</body>", probe), encoding="utf-8")
    return path


def test_the_console_is_silent_and_the_page_is_small(page, tmp_path):
    _, console = open_page(page, tmp_path / "profile", "--dump-dom")
    assert console == []
    assert page.stat().st_size < 250_000


def test_the_helper_sees_errors(tmp_path):
    page = tmp_path / "broken.html"
    page.write_text("<script>undefinedFunction()</script>", encoding="utf-8")
    _, console = open_page(page, tmp_path / "profile", "--dump-dom")
    assert any("undefinedFunction" in message for message in console)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_charts_can_be_read_in_the_preferred_colours(page, tmp_path, scheme):
    dark = scheme == "dark"
    picture = ARTIFACTS / f"report-{scheme}.png"
    assert take_picture(page, tmp_path / "profile", picture, "1280,5200", dark) == []
    path = probed(page.read_text(encoding="utf-8"), tmp_path / "probed.html", _PROBE)
    seen = _look(path, tmp_path, dark)
    assert (_luminance(seen["card"]) < 0.1) == dark
    assert all(_contrast(seen["card"], word) >= 4.5 for word in seen["words"])
    assert all("system-ui" in font for font in seen["fonts"])


def test_nothing_sticks_out_or_is_tiny_on_a_phone(page, tmp_path):
    probed(page.read_text(encoding="utf-8"), tmp_path / "probed.html", _PROBE)
    phone = tmp_path / "phone.html"
    phone.write_text(_PHONE, encoding="utf-8")
    picture = ARTIFACTS / "report-phone.png"
    assert take_picture(phone, tmp_path / "profile", picture, "500,12000", False) == []
    seen = _look(phone, tmp_path, dark=False)
    assert not seen["sticksOut"]
    # Pixels of the least text that is shown.
    assert seen["smallest"] > 6.5


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("which", ["full", "bare"])
def test_it_is_accessible(record, tmp_path, scheme, which):
    axe = pytest.importorskip("axe_core_python", reason="needs axe-core-python")
    source = (files(axe) / "axe.min.js").read_text(encoding="utf-8")
    shown = record if which == "full" else PruneRecord("model", "wanda", "Wanda()", "row", 0.5)
    path = probed(render(shown), tmp_path / "axe.html", _AXE % source)
    seen = _look(path, tmp_path, scheme == "dark")
    assert seen["violations"] == []
    assert seen["passes"] > 15


def _look(page: Path, tmp_path: Path, dark: bool) -> dict:
    scheme = f"--blink-settings=preferredColorScheme={0 if dark else 1}"
    document, _ = open_page(page, tmp_path / "profile", "--dump-dom", scheme)
    return json.loads(unescape(re.search('data-seen="([^"]*)"', document)[1]))


def _luminance(colour: str) -> float:
    """Return the relative luminance that the Web Content Accessibility Guidelines define."""
    channels = [int(c) / 255 for c in re.findall(r"\d+", colour)[:3]]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _contrast(one: str, other: str) -> float:
    darker, lighter = sorted((_luminance(one), _luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)
