"""What makes a small calibrated bundle quickly."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sld_edge.bundle import Bundle

#: A calibration that takes seconds: what it sees is too little for a real bundle.
QUICK: dict[str, Any] = {"pictures": 2, "compared": 2, "steps": 4, "samples": 1, "threads": 1}

Calibrate = Callable[..., Bundle]
