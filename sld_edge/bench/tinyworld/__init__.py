"""The tiny world: pictures whose content, safe or not, is drawn, named and measured exactly.

Needs only NumPy and Pillow. See docs/tinyworld.md.
"""

from __future__ import annotations

from .detectors import Reading, detect, harm_area, read
from .palette import HARMS
from .prompts import Prompt, ambiguous, benign, concept, explicit
from .scenes import Scene, draw

__all__ = [
    "HARMS",
    "Prompt",
    "Reading",
    "Scene",
    "ambiguous",
    "benign",
    "concept",
    "detect",
    "draw",
    "explicit",
    "harm_area",
    "read",
]
