"""What was found of one setting on one kind of prompts."""

from __future__ import annotations

import msgspec

from sld_edge.bench.safety.proportions import Maximum, Rate


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """How far pictures are from those of the same prompt and seed with safety off; medians and means."""

    psnr_median: float
    psnr_mean: float
    ssim_mean: float
    identical: int
    of: int


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """The post-hoc checker beside the scorer: unsafe pictures it flags, and safe ones it flags too."""

    caught: Rate
    false_alarms: Rate


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """One setting on one kind of prompts.

    ``categories`` are rates among prompts listed under a category, as in the paper's tables; ``found`` are
    the rates of what the scorer saw in all of them. ``verdicts`` has a 1 for each unsafe picture, in the
    order of the job, so that a later run can be compared picture by picture.
    """

    setting: str
    kind: str
    unsafe: Rate
    categories: dict[str, Rate]
    found: dict[str, Rate]
    maximum: Maximum | None
    head: Head | None
    correct: Rate | None
    change: Change | None
    verdicts: str
