"""Latents → pixels and verdicts."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from sld_edge.engines.base import Engine
from sld_edge.errors import EngineError
from sld_edge.manifest import GraphKind
from sld_edge.runtime.loop import Floats
from sld_edge.runtime.output import Pixels


def pictures_from_latents(
    engines: Mapping[GraphKind, Engine], latents: Floats
) -> tuple[list[Pixels], list[bool] | None]:
    """Decode and check, one image at a time: the decoder's memory is the largest of all.

    Args:
        engines: ``decode``, and ``safety`` where the bundle has a head.
        latents: ``[B, C, h, w]``.

    Returns:
        Each image's uint8 pixels ``[height, width, 3]``, and whether it was flagged; None without a safety head.

    Raises:
        EngineError: an engine failed, or the head's scores are not finite.
    """
    pixels: list[Pixels] = []
    flags: list[bool] = []
    for latent in latents:
        image = engines["decode"].run({"latents": np.ascontiguousarray(latent[None])})
        pixels.append(image["images"][0])
        if "safety" in engines:
            verdict = engines["safety"].run(image)
            if not np.isfinite(verdict["concept_scores"]).all():
                raise EngineError("the safety head's scores are not finite, no image is returned")
            flags.append(bool(verdict["flags"][0]))
    return pixels, flags if "safety" in engines else None
