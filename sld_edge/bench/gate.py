"""The regression gate: is this measurement slower than the baseline by more than is allowed?"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from sld_edge.bench.stats import FEWEST, Interval, ratio_interval
from sld_edge.shell import say

Verdict = Literal["passed", "regressed", "unclear"]


@dataclass(frozen=True, kw_only=True)
class Decision:
    """How a measurement compares with its baseline. ``ratio`` is new median over old median."""

    name: str
    ratio: Interval
    allowed: float
    verdict: Verdict

    def line(self) -> str:
        """The decision in one line for a person."""
        change = self.ratio.value - 1.0
        span = f"{self.ratio.low - 1.0:+.1%} to {self.ratio.high - 1.0:+.1%}"
        text = f"{self.name}: {change:+.1%} ({span}), allowed {self.allowed:+.1%}: {self.verdict}"
        if self.verdict == "unclear":
            text += (
                " — the interval reaches past the limit; repeat more often or quieten the machine"
            )
        return text


class Decided(Protocol):
    """A decision, whatever it is about."""

    @property
    def verdict(self) -> Verdict: ...

    def line(self) -> str:
        """In one line for a person."""
        ...


def settle(decisions: Sequence[Decided], *, strict: bool = False) -> None:
    """Tell every decision, and leave with status 1 where one fails; ``strict`` where one is unclear too."""
    for decision in decisions:
        say(decision.line())
    failing = ("regressed", "unclear") if strict else ("regressed",)
    if any(decision.verdict in failing for decision in decisions):
        sys.exit(1)


def decide(
    name: str, new: Sequence[float], old: Sequence[float], *, max_regression: float
) -> Decision:
    """Compare two series of timings.

    ``regressed``: the best estimate is past the limit and the slowdown itself is certain (the whole interval
    lies above 1). ``passed``: the whole interval is within the limit. Otherwise ``unclear``.
    """
    ratio = ratio_interval(new, old)
    limit = 1.0 + max_regression
    certain = ratio.low > 1.0 and min(len(new), len(old)) >= FEWEST
    verdict: Verdict = "unclear"
    if ratio.value > limit and certain:
        verdict = "regressed"
    elif ratio.high <= limit:
        verdict = "passed"
    return Decision(name=name, ratio=ratio, allowed=max_regression, verdict=verdict)
