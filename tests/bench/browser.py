"""A real headless browser that draws the reports' pages."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome-headless-shell")
#: Without these it would talk to the network, ask for a sandbox that containers lack, or update itself.
_QUIET = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--hide-scrollbars", "--force-color-profile=srgb",
)  # fmt: skip


def draw(page: str, folder: Path, *, height: int = 3000) -> tuple[str, np.ndarray]:
    """The document as the browser understood it, and its pixels ``[H, W, 3]``, 1250 wide."""
    picture = folder / "page.png"
    _show(page, folder, height, f"--screenshot={picture}")
    return understood(page, folder, height=height), np.asarray(Image.open(picture).convert("RGB"))


def understood(page: str, folder: Path, *, height: int = 3000) -> str:
    """The document as the browser understood it."""
    return _show(page, folder, height, "--dump-dom")


def _show(page: str, folder: Path, height: int, *words: str) -> str:
    """Open a page with more of the browser's options; its standard output.

    Without a browser the test is skipped, but fails where ``SLD_NEED_BROWSER`` is set, as in CI.
    """
    browser = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if browser is None:
        reason = "no browser is installed (chromium)"
        if os.environ.get("SLD_NEED_BROWSER"):
            pytest.fail(reason)
        pytest.skip(reason)
    (folder / "page.html").write_text(page, encoding="utf-8")
    done = subprocess.run(
        [browser, *_QUIET, f"--user-data-dir={folder / 'profile'}",
         f"--window-size=1250,{height}", *words, (folder / "page.html").as_uri()],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    return done.stdout


def overflow_of(page: str, folder: Path) -> str:
    """How many tables must be scrolled sideways, and how many of the plots' texts leave their picture."""
    return understood(page + _MEASURE, folder).split('id="measured">')[1].split("<")[0]


_MEASURE = """<p id="measured"></p><script>
const wide = [...document.querySelectorAll(".scroll")].filter(e => e.scrollWidth > e.clientWidth + 1).length;
const cut = [...document.querySelectorAll("svg text")].filter(e => {
  const [a, b] = [e.getBoundingClientRect(), e.ownerSVGElement.getBoundingClientRect()];
  return a.left < b.left - 1 || a.right > b.right + 1 || a.bottom > b.bottom + 1;
}).length;
document.getElementById("measured").textContent = `wide: ${wide}, cut: ${cut}`;
</script>"""


def count_of(pixels: np.ndarray, colour: str) -> int:
    """How many pixels have a colour of the style sheet, ``"2f7fd1"``, but for rounding."""
    wanted = np.frombuffer(bytes.fromhex(colour), np.uint8).astype(int)
    return int((np.abs(pixels.astype(int) - wanted).max(axis=-1) <= 3).sum())
