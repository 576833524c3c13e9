"""Calibration settings."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from sld_edge.errors import InvalidInput

#: Context manager around a named stage of the work, for timing or display.
Stage = Callable[[str], AbstractContextManager[object]]
#: Most noise power, relative to the power of the safety direction ε_s − ε_u, that rounding may add to it.
NOISE_BUDGET = 0.01


@dataclass(frozen=True, kw_only=True)
class CalibrationConfig:
    """One calibration.

    Args:
        bundle: The bundle, fp32.
        out: Folder to write; must not exist.
        prompts: Text file of prompts to calibrate on, one a line; None takes the built-in ones.
        pictures: How many of the prompts; 0 takes all.
        compared: Pictures that the result is compared on, with prompts and seeds of their own.
        steps: Denoising steps of every picture.
        samples: Network evaluations that the blocks' sensitivity is measured on; each block is run once for each.
        noise_budget: See :data:`NOISE_BUDGET`; blocks of layers beyond it stay in higher precision.
        threads: CPU threads; 0 uses every core.

    Raises:
        InvalidInput: a number is out of range.
    """

    bundle: Path
    out: Path
    prompts: Path | None = None
    pictures: int = 0
    compared: int = 4
    steps: int = 20
    samples: int = 4
    noise_budget: float = NOISE_BUDGET
    threads: int = 0

    def __post_init__(self) -> None:
        for name, least in (
            ("pictures", 0),
            ("compared", 1),
            ("steps", 2),
            ("samples", 1),
            ("threads", 0),
        ):
            if getattr(self, name) < least:
                raise InvalidInput(f"{name} is too small", value=getattr(self, name),
                                   hint=f"use {least} or more")  # fmt: skip
        if not (math.isfinite(self.noise_budget) and self.noise_budget >= 0):
            raise InvalidInput("the noise budget is not a number of 0 or more", value=self.noise_budget,
                               hint=f"{NOISE_BUDGET} is the default")  # fmt: skip
