"""The page loads nothing, its plots are well formed, and a blurred picture cannot be had back."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from sld_edge.bench.safety.contact_sheet import CELLS, blur, chosen, rows_of, thumbnail
from sld_edge.bench.safety.page import page_from_report
from sld_edge.bench.safety.store import Store
from sld_edge.bench.safety.table import print_report
from tests.bench.browser import count_of, draw, overflow_of
from tests.bench.safety.fake import FakePipe, made_job
from tests.bench.safety.reports import report_of, run_fake
from tests.bench.test_page import Links, drawings_of, tips_of

JOB = made_job(limit=8)


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished job."""
    folder = tmp_path_factory.mktemp("measured")
    run_fake(folder, JOB, FakePipe(JOB.prompts))
    return folder


def made_page(folder: Path, *, show_unsafe: bool = False) -> str:
    job = JOB
    with Store(folder, job) as store:
        rows = rows_of(
            job, list(store.records.values()), store.picture, count=4, show_unsafe=show_unsafe
        )
        return page_from_report(report_of(job, store), rows, show_unsafe=show_unsafe)


@pytest.fixture(scope="module")
def page(measured: Path) -> str:
    return made_page(measured)


def pictures_of(page: str) -> list[tuple[bool, np.ndarray]]:
    """Each picture of the page, and whether it is marked unsafe."""
    found = re.findall(r'<img src="data:image/png;base64,([^"]+)"[^>]*?( class="unsafe")?>', page)
    return [
        (bool(mark), np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))))
        for data, mark in found
    ]


def test_page_loads_nothing_and_escapes_names(page: str) -> None:
    links = Links()
    links.feed(page)
    assert links.found
    assert all(link.startswith("data:image/png;base64,") for link in links.found)
    without_data = re.sub(r"base64,[^\"]+", "", page)
    for word in ("<script", "url(", "http:", "https:", "{{", "{%"):
        assert word not in without_data
    assert "fake &amp; &lt;bundle&gt;" in page
    assert "--out &lt;folder&gt;" in page


def test_plots_have_a_mark_for_every_rate(page: str) -> None:
    # Ambiguous: overall, by the two categories of its eight prompts, by the three harms that can be seen.
    # Benign: overall and by harms.
    assert [len(tips_of(drawing)) for drawing in drawings_of(page)] == [4, 8, 12, 4, 12]


def test_unsafe_pictures_are_in_the_page_only_blurred(page: str, measured: Path) -> None:
    hidden = pictures_of(page)
    shown = pictures_of(made_page(measured, show_unsafe=True))
    assert len(hidden) == len(shown) == 8 * 4
    assert any(unsafe for unsafe, _ in hidden)
    for (unsafe, covered), (_, plain) in zip(hidden, shown, strict=True):
        if unsafe:
            assert np.array_equal(covered, blur(plain))
        else:
            assert np.array_equal(covered, plain)


def test_blur_forgets_everything_finer_than_its_cells() -> None:
    rng = np.random.default_rng(0)
    cells = rng.integers(60, 190, (CELLS, CELLS, 3))
    flat = np.repeat(np.repeat(cells, 8, 0), 8, 1).astype(np.uint8)
    # A picture with the same means and quite other detail leaves the very same bytes behind.
    wave = np.where(np.indices(flat.shape).sum(0) % 2, 50, -50)
    detailed = (flat + wave).astype(np.uint8)
    assert np.abs(detailed.astype(int) - flat).min() == 50
    assert thumbnail(detailed, blurred=True) == thumbnail(flat, blurred=True)
    assert thumbnail(detailed, blurred=False) != thumbnail(flat, blurred=False)
    assert blur(np.zeros((512, 256, 3), np.uint8)).shape == (128, 64, 3)


def test_chromium_draws_the_page(page: str, tmp_path: Path) -> None:
    dom, pixels = draw(page, tmp_path, height=4000)
    assert overflow_of(page, tmp_path) == "wide: 0, cut: 0"
    assert dom.count("<svg") == 5
    assert dom.count("<img") == 8 * 4
    # The marks of the first two settings, and the frames of unsafe pictures, really are on the screen.
    for colour in ("7b8790", "d98a1f", "c9503c"):
        assert count_of(pixels, colour) > 200


def test_sheet_lies_evenly_over_each_kind() -> None:
    assert chosen(made_job(limit=8), 2) == [2, 6, 10, 14]
    assert chosen(made_job(limit=2), 6) == [0, 1, 2, 3]


def test_table_shows_every_setting(tmp_path: Path) -> None:
    console = Console(width=160, record=True, file=io.StringIO())
    print_report(run_fake(tmp_path, made_job()), console)
    text = console.export_text()
    for word in ("off", "negative", "medium", "max", "PSNR to off", "prompt correct", "weapons"):
        assert word in text
