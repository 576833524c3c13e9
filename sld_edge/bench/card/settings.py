"""What one run of ``sld-bench card`` does: how large, how long, and on what."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from sld_edge.errors import InvalidInput

#: Part → what it does, and its share of the time. Speed comes before checks; making the large model takes longest.
PARTS: dict[str, tuple[str, float]] = {
    "machine": ("machine, card and libraries", 0.03),
    "model": ("SD 1.5-sized fp16 checkpoint and bundle", 0.50),
    "compare": ("pipelines in turns on the card", 0.24),
    "kernels": ("kernels of one step", 0.06),
    "tiny-check": ("gpu-check on a small trained model", 0.12),
    "model-check": ("gpu-check on the SD 1.5-sized bundle", 0.05),
}
#: Parts that need what another one made.
NEEDS = {"compare": "model", "kernels": "model", "model-check": "model"}
_SHORTEST, _LONGEST = 1.0, 86_400.0
_TIME = re.compile(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s?)?")


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """One run, as its parts' processes are told.

    Args:
        dry_run: The CPU is in the card's place, and everything is tiny.
        checkpoint: Folder of the small trained model; empty where there is none.
        work: Folder for what is made on the way.
        size: Architecture of the random checkpoint.
        steps: Denoising steps of a compared picture.
        repeats: Rounds of the comparison.
        check_steps: Steps of gpu-check's whole run on the small model and on the large one.
        precisions: Of the small model's bundles.
        threads: CPU threads of every pipeline; 0 uses every core.
        compiled: Whether torch.compile is tried.
    """

    dry_run: bool
    checkpoint: str
    work: str
    size: str = "sd15"
    steps: int = 50
    repeats: int = 3
    check_steps: tuple[int, int] = (10, 2)
    precisions: tuple[str, ...] = ("fp16", "fp32")
    threads: int = 0
    compiled: bool = True

    @property
    def models(self) -> Path:
        """Where this size's checkpoint and bundle are: a dry run's are never taken for a card's."""
        return Path(self.work) / self.size

    @property
    def device(self) -> str:
        """Where torch computes."""
        return "cpu" if self.dry_run else "cuda"


def settings_for(*, dry_run: bool, **rest: Any) -> Settings:
    """The settings of a run on a card, or of one that only walks the way."""
    small: dict[str, Any] = {
        "size": "tiny", "steps": 2, "repeats": 1, "check_steps": (2, 2), "precisions": ("fp16",),
        "threads": 1,
    }  # fmt: skip
    return Settings(dry_run=dry_run, **((small if dry_run else {}) | rest))


@dataclass(frozen=True)
class Clock:
    """When each part has to end, in seconds after the start: time that a part leaves goes to the ones after it."""

    total: float

    def end_of(self, part: str) -> float:
        """The last moment of a part."""
        names = list(PARTS)
        shares = (PARTS[name][1] for name in names[: names.index(part) + 1])
        return self.total * sum(shares)


def seconds_from_text(text: str) -> float:
    """``"8m"``, ``"90s"``, ``"1h30m"`` or plain seconds.

    Raises:
        InvalidInput: no such duration, or out of range.
    """
    match = _TIME.fullmatch(text.strip().lower())
    if match is None or not any(match.groups()):
        raise InvalidInput("the time is no duration", value=text, hint="write 8m, 90s or 1h30m")
    hours, minutes, rest = (float(part or 0) for part in match.groups())
    found = 3600 * hours + 60 * minutes + rest
    if not _SHORTEST <= found <= _LONGEST:
        raise InvalidInput("the time is out of range", value=text, hint="use 1s to 24h")
    return found


def check_skips(names: tuple[str, ...]) -> None:
    """Refuse names that are no part.

    Raises:
        InvalidInput: one is none, or nothing is left.
    """
    for name in names:
        if name not in PARTS:
            raise InvalidInput("unknown part", value=name, hint=f"use {', '.join(PARTS)}")
    if set(names) == set(PARTS):
        raise InvalidInput("every part is skipped", hint="leave one")
