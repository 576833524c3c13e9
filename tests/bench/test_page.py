"""The HTML page: self-contained, well formed, and drawn by a real browser."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest

from sld_edge.bench.latency.case import cases_from_sweep
from sld_edge.bench.latency.page import page_from_report
from tests.bench.browser import count_of, draw, overflow_of
from tests.bench.reports import made_report


def swept_page() -> str:
    cases = cases_from_sweep(
        {"steps": (2, 4, 8), "batch": (1, 2), "safety": ("off", "strong"), "size": [(64, 64)]}
    )
    return page_from_report(made_report(cases))


class Links(HTMLParser):
    """Collects everything a page would load from elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value or "" for key, value in attrs if key in ("src", "href", "data")]


def test_page_loads_nothing_and_escapes_names() -> None:
    page = swept_page()
    links = Links()
    links.feed(page)
    assert links.found == []
    assert "<script" not in page
    assert "url(" not in page
    assert "tiny &amp; &lt;random&gt;" in page
    assert "$" not in page.replace("$$", "")


def test_plots_are_well_formed_and_have_a_mark_for_everything() -> None:
    page = swept_page()
    drawings = [ElementTree.fromstring(part) for part in re.findall(r"<svg.*?</svg>", page, re.S)]
    # One of stages, three of sweeps (steps, batch, safety), one distribution for each of 12 cases.
    assert len(drawings) == 1 + 3 + 12
    bars = drawings[0].findall("rect")
    assert len(bars) == 12 * 7
    assert len(drawings[-1].findall("circle")) == 12
    steps = next(d for d in drawings if d.get("aria-label") == "sweep over steps")
    assert len(steps.findall("circle")) == 12
    assert len(steps.findall("polyline")) == 4


def test_longest_bar_ends_at_the_axis_end() -> None:
    drawing = re.search(r"<svg.*?</svg>", page_from_report(made_report()), re.S)
    assert drawing is not None
    bars = ElementTree.fromstring(drawing[0]).findall("rect")
    ends = [float(bar.get("x", 0)) + float(bar.get("width", 0)) for bar in bars]
    assert max(ends) == pytest.approx(880 - 24, abs=2.0)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.0, 10.0, [0, 2, 4, 6, 8, 10]),
        (0.3, 0.9, [0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]),
        (1, 1, [1]),
    ],
)
def test_round_numbers(low: float, high: float, expected: list[float]) -> None:
    assert round_numbers(low, high) == pytest.approx(expected)


def test_chromium_draws_the_page(tmp_path: Path) -> None:
    dom, pixels = draw(swept_page(), tmp_path)
    assert dom.count("<svg") == 16
    assert dom.count("<circle") >= 12 * 12
    # The unet's blue of the stage bars, as the style sheet gives it, really is on the screen.
    assert count_of(pixels, "2f7fd1") > 2000


def test_no_table_or_label_is_cut_off(tmp_path: Path) -> None:
    assert overflow_of(swept_page(), tmp_path) == "wide: 0, cut: 0"
    wide = swept_page().replace("p50", "p50" * 99)
    assert overflow_of(wide, tmp_path) != "wide: 0, cut: 0"


def test_many_warnings_are_folded_up_behind_their_number() -> None:
    few, many = (warnings(f"line {n}" for n in range(count)) for count in (6, 9))
    assert "<details" not in few
    assert "and 3 more warnings" in many
    assert [many.count(f"line {n}<") for n in range(9)] == [1] * 9
