"""What this project promises, and whether a measurement shows it.

The promises are for SD 1.5-sized weights at 512×512 on two cores; a measurement of another network or size shows
nothing of them, and says what it is a measurement of.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from sld_edge.bench.stats import Interval
from sld_edge.bench.tables import Table
from sld_edge.manifest import Manifest, Precision

_UNET_WEIGHTS = "graphs/unet.weights"
#: SD 1.5's UNet without its context's projections, which the text graph has; and some room.
_MILLIONS = (780, 900)

Verdict = Literal["met", "missed", "likely met", "likely missed", "not shown"]


@dataclass(frozen=True, kw_only=True)
class Target:
    """One promise and what was measured.

    Args:
        name: What is promised.
        limit: The number to reach.
        at_least: Whether more is better; otherwise less is.
        unit: ``"x"``, ``"%"``, ``"ms"`` or ``"s"``, for people.
        measured: A median with its interval, or None where there is none that counts.
        why: Why there is none.
        case: Which of several measured cases it is about.
    """

    name: str
    limit: float
    at_least: bool
    unit: str
    measured: Interval | None
    why: str = ""
    case: str = ""

    @property
    def verdict(self) -> Verdict:
        """The median decides; where the limit is inside the interval, that is said."""
        if self.measured is None:
            return "not shown"
        ends = (self.measured.low, self.measured.high)
        met, *certain = (self._holds(value) for value in (self.measured.value, *ends))
        if met:
            return "met" if all(certain) else "likely met"
        return "likely missed" if any(certain) else "missed"

    @property
    def wanted(self) -> str:
        """The limit for people."""
        return f"{'≥' if self.at_least else '≤'}\u00a0{self._shown(self.limit)}"

    def cells(self) -> tuple[str, str, str, str]:
        """Name, limit, measurement and verdict for people."""
        if self.measured is None:
            return self.name, self.wanted, self.why, self.verdict
        low, high = self._shown(self.measured.low), self._shown(self.measured.high)
        value = self._shown(self.measured.value)
        span = "" if low == high == value else f" ({low} – {high})"
        return self.name, self.wanted, value + span, self.verdict

    def short(self) -> str:
        """Measurement and verdict for people, without the interval."""
        shown = self.why if self.measured is None else self._shown(self.measured.value)
        return f"{shown}, {self.verdict}"

    def to_json(self) -> dict[str, Any]:
        """Everything, verdict included; seconds and shares as plain numbers."""
        return {**asdict(self), "verdict": self.verdict}

    def _holds(self, value: float) -> bool:
        return value >= self.limit if self.at_least else value <= self.limit

    def _shown(self, value: float) -> str:
        shown = {"x": f"{value:.3g}×", "%": f"{value * 100:.3g}%", "ms": f"{value * 1e3:.3g} ms"}
        return shown.get(self.unit, f"{value:.3g} {self.unit}")


def unet_bytes_of(manifest: Manifest) -> int:
    """Bytes of the UNet's weights in the bundle's own precision; zero without any."""
    file = manifest.files.get(_UNET_WEIGHTS)
    return file.size if file else 0


def not_promised_of(unet_bytes: int, precision: Precision, height: int, width: int) -> str:
    """Why a measurement is of something else than SD 1.5 at 512×512; empty where it is that.

    A network is told by its number of weights, so random ones of that architecture count.

    Args:
        unet_bytes: See :func:`unet_bytes_of`.
        precision: What a weight is stored as.
        height: Pixels of a picture.
        width: Likewise.
    """
    millions = unet_bytes / {"fp32": 4, "fp16": 2}[precision] / 1e6
    if _MILLIONS[0] <= millions <= _MILLIONS[1] and (height, width) == (512, 512):
        return ""
    return f"measured on {millions:.3g} million weights at {height}x{width}, promised for SD 1.5 at 512x512"


def table_of(targets: Sequence[Target], title: str) -> Table:
    """A table for people: a row for each promise, or for each case where there are several."""
    if len({target.case for target in targets}) <= 1:
        rows = [target.cells() for target in targets]
        return Table(
            title=title, head=("promise", "limit", "measured", "verdict"), rows=rows, left=4
        )
    names = dict.fromkeys((target.name, target.wanted) for target in targets)
    found: dict[str, dict[str, str]] = {}
    for target in targets:
        found.setdefault(target.case, {})[target.name] = target.short()
    head = ["case", *(f"{name}: {wanted}" for name, wanted in names)]
    cases = [[case, *(cells.get(name, "") for name, _ in names)] for case, cells in found.items()]
    return Table(title=title, head=head, rows=cases, left=len(head))
