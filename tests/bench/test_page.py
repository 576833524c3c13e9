"""The HTML page: self-contained, well formed, and drawn by a real browser."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import msgspec
import pytest

from sld_edge.bench.latency.case import cases_from_sweep
from sld_edge.bench.latency.page import page_from_report
from tests.bench.browser import count_of, draw, overflow_of
from tests.bench.reports import made_report


@cache
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
        found = [value or "" for key, value in attrs if key in ("src", "href", "data")]
        self.found += [value for value in found if not value.startswith("#")]


def test_page_loads_nothing_and_escapes_names() -> None:
    page = swept_page()
    links = Links()
    links.feed(page)
    assert links.found == []
    assert "<script" not in page
    assert "url(" not in page
    assert "tiny &amp; &lt;random&gt;" in page
    assert "{{" not in page
    assert "{%" not in page


def drawings_of(page: str) -> list[ElementTree.Element]:
    return [ElementTree.fromstring(part) for part in re.findall(r"<svg.*?</svg>", page, re.S)]


def tips_of(drawing: ElementTree.Element) -> list[str]:
    """What a browser shows of each mark."""
    return [title.text or "" for title in drawing.iter("title")]


def test_plots_are_well_formed_and_have_a_mark_for_everything() -> None:
    drawings = {one.get("aria-label"): tips_of(one) for one in drawings_of(swept_page())}
    sweeps = [f"sweep over {axis}" for axis in ("batch", "safety", "steps")]
    assert list(drawings) == ["time by stage", *sweeps, "how each case spreads"]
    assert len(drawings["time by stage"]) == 12 * 7
    assert drawings["time by stage"][12].endswith(" of batch 1, safety off, 2 steps")
    assert len(drawings["how each case spreads"]) == 12 * 12
    assert all(len(drawings[sweep]) == 12 for sweep in sweeps)


def test_what_a_drawing_refers_to_is_in_it_and_nowhere_else() -> None:
    page = swept_page()
    assert set(re.findall(r'href="#(\w+)"', page)) == set(re.findall(r' id="(\w+)"', page))
    ids = re.findall(r' id="(\w+)"', page)
    assert len(ids) == len(set(ids))


def test_longest_bar_ends_at_the_axis_end() -> None:
    [stages, *_] = drawings_of(page_from_report(made_report()))
    bars = [mark.find("path") for mark in stages.iter("g") if mark.find("title") is not None]
    ends = [
        float(x)
        for bar in bars
        if bar is not None
        for x in re.findall(r"[ML] ([\d.]+)", bar.get("d", ""))
    ]
    assert max(ends) == pytest.approx(877, abs=3)


def test_the_same_report_gives_the_same_bytes_whatever_the_users_settings_are(
    tmp_path: Path,
) -> None:
    """In another process, with another hash seed, another style, and a home in which nothing is left."""
    home = tmp_path / "home"
    home.mkdir()
    (tmp_path / "matplotlibrc").write_text("axes.facecolor: red\nsvg.fonttype: path\n")
    code = (
        "import sys; from tests.bench.test_page import page_from_report, made_report; "
        "sys.stdout.buffer.write(page_from_report(made_report()).encode())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, check=True,
        env={**os.environ, "MATPLOTLIBRC": str(tmp_path), "PYTHONHASHSEED": "7", "HOME": str(home)},
    )  # fmt: skip
    assert done.stdout.decode() == page_from_report(made_report())
    assert not list(home.rglob("*"))


def test_a_name_is_no_formula_and_may_have_any_letters() -> None:
    report = made_report()
    named = msgspec.structs.replace(report.cases[0], name="$x_1$ <b> \u4f60\u597d " + "long " * 20)
    page = page_from_report(msgspec.structs.replace(report, cases=[named]))
    [label] = {text.text for text in drawings_of(page)[0].iter("text") if "$" in (text.text or "")}
    assert label is not None
    assert label.startswith("$x_1$ <b> \u4f60\u597d long")
    assert label.endswith("…")


def test_chromium_draws_the_page(tmp_path: Path) -> None:
    dom, pixels = draw(swept_page(), tmp_path)
    assert dom.count("<svg") == 5
    assert dom.count("<title>") >= 12 * 12
    # The unet's blue of the stage bars, as the style sheet gives it, really is on the screen.
    assert count_of(pixels, "2f7fd1") > 2000


def test_no_table_or_label_is_cut_off(tmp_path: Path) -> None:
    assert overflow_of(swept_page(), tmp_path) == "wide: 0, cut: 0"
    wide = swept_page().replace("p50", "p50" * 99)
    assert overflow_of(wide, tmp_path) != "wide: 0, cut: 0"


def test_many_warnings_are_folded_up_behind_their_number() -> None:
    few, many = (
        page_from_report(made_report([], warnings=[f"line {n}" for n in range(count)]))
        for count in (6, 9)
    )
    assert "<details" not in few
    assert "and 3 more warnings" in many
    assert [many.count(f"line {n}<") for n in range(9)] == [1] * 9
