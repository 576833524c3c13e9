"""A sweep: every strength of safety at several numbers of steps, schedulers and guidance scales.

What counts is the share of off's unsafe images that a strength leaves in the very same run (steps, scheduler, guidance
scale), and how far that share moves from the run of :data:`REFERENCE_STEPS` steps, which presets were published for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, TypeVar

import msgspec

from sld_edge.bench.safety.job import Job
from sld_edge.bench.safety.outcome import Outcome
from sld_edge.bench.safety.proportions import (
    Difference,
    Rate,
    Ratio,
    difference_of,
    ratio_of,
)
from sld_edge.bench.safety.settings import OFF, Setting
from sld_edge.errors import InvalidInput
from sld_edge.runtime.steering import REFERENCE_STEPS

Value = TypeVar("Value", int, float, str)

#: Where no numbers of steps are named.
DEFAULT_STEPS: Final = (4, 8, 10, 15, 20, 30, REFERENCE_STEPS)


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """One strength in one run on one kind of prompts; ``setting`` finds its outcome in the report.

    ``left`` is its unsafe rate over off's in the same run. ``scheduler`` is empty for the checkpoint's.
    """

    setting: str
    strength: str
    kind: str
    scheduler: str
    guidance_scale: float
    steps: int
    unsafe: Rate
    left: Ratio
    correct: Rate | None


class Drift(msgspec.Struct, frozen=True, kw_only=True):
    """Where a strength's share of off's unsafe images differs most from its run of ``reference`` steps.

    The interval is that of this one difference; the largest of several is a little too large by chance.
    """

    strength: str
    kind: str
    scheduler: str
    guidance_scale: float
    reference: int
    steps: int
    difference: Difference


class Sweep(msgspec.Struct, frozen=True, kw_only=True):
    """All points, and a drift for each line of the picture that has a reference run and off to compare with."""

    points: list[Point]
    drifts: list[Drift]


def swept(
    strengths: Sequence[Setting],
    *,
    steps: Sequence[int],
    schedulers: Sequence[str],
    guidance_scales: Sequence[float],
    checkpoint: Mapping[str, Any],
) -> list[Setting]:
    """The cross product. Off is put in front where it is missing: shares are of what it shows.

    Args:
        strengths: Settings without runs of their own.
        schedulers: Any spelling the pipeline takes; an empty one is the checkpoint's.
        checkpoint: The bundle's scheduler configuration.

    Raises:
        InvalidInput: an unknown scheduler, or a value twice.
    """
    from sld_edge.runtime.schedulers.settings import resolve_settings

    names = [name and resolve_settings(name, checkpoint).name for name in schedulers]
    axes: dict[str, Sequence[Any]] = {
        "number of steps": steps,
        "scheduler": names,
        "guidance scale": guidance_scales,
    }
    for what, values in axes.items():
        if twice := next((value for value in values if values.count(value) > 1), None):
            raise InvalidInput(f"the sweep has a {what} twice", value=twice)
    if not any(setting.is_off for setting in strengths):
        strengths = [Setting(name=OFF, safety=OFF), *strengths]
    return [
        setting.at(steps=count, scheduler=name, guidance_scale=scale)
        for name in names
        for scale in guidance_scales
        for count in steps
        for setting in strengths
    ]


def sweep_of(job: Job, outcomes: Sequence[Outcome]) -> Sweep | None:
    """Points and drifts from a job's outcomes; None where its settings have no runs of their own."""
    if not all(setting.steps for setting in job.settings):
        return None
    known = {(outcome.setting, outcome.kind): outcome for outcome in outcomes}
    points = [
        _point(setting, known[setting.name, kind], known[_off_name(job, setting), kind])
        for kind in job.kinds()
        for setting in job.settings
    ]
    return Sweep(points=points, drifts=_drifts(points))


def axes_of(job: Job) -> dict[str, list[str]]:
    """Steps, guidance scales and schedulers of all settings, for people; one of each where there is no sweep."""
    return {
        "steps": [str(value) for value in _found(s.steps or job.steps for s in job.settings)],
        "guidance": [
            f"{value:g}"
            for value in _found(s.guidance_scale or job.guidance_scale for s in job.settings)
        ],
        "scheduler": _found(
            s.scheduler or job.scheduler or "the checkpoint's" for s in job.settings
        ),
    }


def lines_of(points: Sequence[Point]) -> dict[tuple[str, str, float, str], list[Point]]:
    """Points by kind, scheduler, guidance scale and strength, each line in the order of its steps."""
    found: dict[tuple[str, str, float, str], list[Point]] = {}
    for point in points:
        key = (point.kind, point.scheduler, point.guidance_scale, point.strength)
        found.setdefault(key, []).append(point)
    return {key: sorted(line, key=lambda point: point.steps) for key, line in found.items()}


def _found(values: Iterable[Value]) -> list[Value]:
    return list(dict.fromkeys(values))


def _off_name(job: Job, setting: Setting) -> str:
    off = job.off_of(setting)
    assert off is not None, "a sweep always has safety off"
    return off.name


def _point(setting: Setting, outcome: Outcome, off: Outcome) -> Point:
    return Point(
        setting=setting.name,
        strength=setting.strength,
        kind=outcome.kind,
        scheduler=setting.scheduler,
        guidance_scale=setting.guidance_scale,
        steps=setting.steps,
        unsafe=outcome.unsafe,
        left=Ratio(value=1.0, low=1.0, high=1.0)
        if setting.is_off and off.unsafe.yes
        else ratio_of(_flags(outcome), _flags(off)),
        correct=outcome.correct,
    )


def _flags(outcome: Outcome) -> list[bool]:
    return [mark == "1" for mark in outcome.verdicts]


def _drifts(points: Sequence[Point]) -> list[Drift]:
    found = []
    for (kind, scheduler, scale, strength), line in lines_of(points).items():
        *others, reference = line  # the run of most steps where there is none of the reference's
        if strength == OFF or not others:
            continue
        if named := [point for point in line if point.steps == REFERENCE_STEPS]:
            reference = named[0]
        drifts = [
            Drift(strength=strength, kind=kind, scheduler=scheduler, guidance_scale=scale,
                  reference=reference.steps, steps=point.steps, difference=difference)
            for point in line
            if point is not reference
            and (difference := difference_of(point.left, reference.left)) is not None
        ]  # fmt: skip
        if drifts:
            found.append(max(drifts, key=lambda drift: abs(drift.difference.value)))
    return found
