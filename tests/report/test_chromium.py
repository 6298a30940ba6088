"""The report in a real browser: it draws, it complains of nothing, it can be read."""

import json
import re
from html import unescape
from pathlib import Path

import pytest

from thresher.report.html import write_report

from .chromium import find_chromium, open_page, take_picture

pytestmark = pytest.mark.skipif(
    find_chromium() is None,
    reason="no Chromium on this machine; `apt-get install chromium` provides one",
)
ARTIFACTS = Path(__file__).parents[2] / "artifacts"

# Reports what a reader would see, once every chart is drawn.
_PROBE = """
<script>addEventListener("load", () => setTimeout(() => {
  const style = element => getComputedStyle(element);
  const charts = [...document.querySelectorAll(".chart")];
  const seen = {
    card: style(document.querySelector("figure")).backgroundColor,
    ticks: charts.map(chart => style(chart.querySelector(".xtick text")).fill),
    sticksOut: document.documentElement.scrollWidth > innerWidth,
    wideCharts: charts.filter(chart =>
      chart.querySelector(".main-svg").getBoundingClientRect().right >
      chart.getBoundingClientRect().right + 1).map(chart => chart.id),
  };
  document.body.dataset.seen = JSON.stringify(seen);
  parent.postMessage(JSON.stringify(seen), "*");
}, 500))</script></body>
"""

# A window cannot be as narrow as a phone, a frame can.
_PHONE = """
<body><script>addEventListener("message", event => document.body.dataset.seen = event.data)</script>
<iframe src="probed.html" style="width:390px;height:9000px;border:0"></iframe></body>
"""


@pytest.fixture
def page(record, tmp_path):
    path = tmp_path / "report.html"
    write_report(record, path)
    return path


@pytest.fixture
def probed(page):
    text = page.read_text(encoding="utf-8")
    assert text.count("</body>") == 1
    path = page.with_name("probed.html")
    path.write_text(text.replace("</body>", _PROBE), encoding="utf-8")
    return path


def test_every_chart_is_drawn_and_the_console_is_silent(page, tmp_path):
    document, console = open_page(page, tmp_path / "profile", "--dump-dom")
    assert console == []
    drawn = document.count('class="chart js-plotly-plot"')
    assert drawn == document.count('role="img"') == 1 + 4 + 7


def test_the_helper_sees_errors(tmp_path):
    page = tmp_path / "broken.html"
    page.write_text("<script>undefinedFunction()</script>", encoding="utf-8")
    _, console = open_page(page, tmp_path / "profile", "--dump-dom")
    assert any("undefinedFunction" in message for message in console)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_charts_can_be_read_in_the_preferred_colours(page, probed, tmp_path, scheme):
    dark = scheme == "dark"
    picture = ARTIFACTS / f"report-{scheme}.png"
    assert take_picture(page, tmp_path / "profile", picture, "1200,4700", dark) == []
    seen = _look(probed, tmp_path, dark)
    assert (_luminance(seen["card"]) < 0.1) == dark
    assert all(_contrast(seen["card"], tick) >= 4.5 for tick in seen["ticks"])


def test_nothing_sticks_out_on_a_phone(probed, tmp_path):
    phone = probed.with_name("phone.html")
    phone.write_text(_PHONE, encoding="utf-8")
    picture = ARTIFACTS / "report-phone.png"
    assert take_picture(phone, tmp_path / "profile", picture, "500,9000", False) == []
    seen = _look(phone, tmp_path, dark=False)
    assert not seen["sticksOut"]
    assert seen["wideCharts"] == []


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
