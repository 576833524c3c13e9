"""What this project promises, and whether a measurement shows it.

The promises are for SD 1.5-sized weights at 512×512 on two cores; a measurement of anything else is held against the
same numbers, and says what it is a measurement of.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from sld_edge.bench.stats import Interval

Verdict = Literal["met", "missed", "met, within the noise", "missed, within the noise", "not shown"]


@dataclass(frozen=True, kw_only=True)
class Target:
    """One promise and what was measured.

    Args:
        name: What is promised, and of which case.
        limit: The number to reach.
        at_least: Whether more is better; otherwise less is.
        unit: ``"x"``, ``"%"``, ``"ms"`` or ``"s"``, for people.
        measured: A median with its interval, or None where there is none that counts.
        why: Why there is none.
    """

    name: str
    limit: float
    at_least: bool
    unit: str
    measured: Interval | None
    why: str = ""

    @property
    def verdict(self) -> Verdict:
        """The median decides; where the limit is inside the interval, that is said."""
        if self.measured is None:
            return "not shown"
        ends = (self.measured.low, self.measured.high)
        met, *certain = (self._holds(value) for value in (self.measured.value, *ends))
        if met:
            return "met" if all(certain) else "met, within the noise"
        return "missed, within the noise" if any(certain) else "missed"

    def cells(self) -> tuple[str, str, str, str]:
        """Name, limit, measurement and verdict for people."""
        sense = "≥" if self.at_least else "≤"
        limit = f"{sense} {self._shown(self.limit)}"
        if self.measured is None:
            return self.name, limit, self.why, self.verdict
        low, high = self._shown(self.measured.low), self._shown(self.measured.high)
        value = self._shown(self.measured.value)
        span = "" if low == high == value else f" ({low} – {high})"
        return self.name, limit, value + span, self.verdict

    def to_json(self) -> dict[str, Any]:
        """Everything, verdict included; seconds and shares as plain numbers."""
        return {**asdict(self), "verdict": self.verdict}

    def _holds(self, value: float) -> bool:
        return value >= self.limit if self.at_least else value <= self.limit

    def _shown(self, value: float) -> str:
        shown = {"x": f"{value:.3g}×", "%": f"{value * 100:.3g}%", "ms": f"{value * 1e3:.3g} ms"}
        return shown.get(self.unit, f"{value:.3g} {self.unit}")


def exactly(value: float) -> Interval:
    """A number that was measured once, or of which no spread is known."""
    return Interval(value=value, low=value, high=value)
