"""A call's pictures before any is withheld: what a measurement judges, counts or compares."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sld_edge.errors import PolicyError
from sld_edge.manifest import Safety

Picture = NDArray[np.uint8]


def originals(output: Any) -> list[Picture]:
    """The pictures as the decoder made them: where the head flagged one, ``images`` has a black one instead.

    Raises:
        PolicyError: a flagged picture was withheld.
    """
    flags = output.nsfw_content_detected or [False] * len(output.images)
    kept = output.unsafe_images or [None] * len(output.images)
    pictures = []
    for shown, flagged, original in zip(output.images, flags, kept, strict=True):
        if flagged and original is None:
            raise PolicyError("a flagged picture was withheld, so it cannot be measured")
        pictures.append(np.asarray(original if flagged else shown, dtype=np.uint8))
    return pictures


def require_originals(safety: Safety) -> None:
    """Find out before minutes are spent that flagged pictures will not be had.

    Raises:
        PolicyError: the bundle's policy withholds them.
    """
    if safety.head and safety.policy.unsafe_images == "withhold":
        raise PolicyError(
            "this bundle's policy withholds flagged pictures, so they cannot be measured",
            hint="measure a bundle of the same checkpoint that was exported to return them",
        )
