"""Latents → pixels and verdicts."""

from __future__ import annotations

import numpy as np

from sld_edge.errors import EngineError
from sld_edge.runtime.loop import Floats
from sld_edge.runtime.networks import Networks
from sld_edge.runtime.output import Pixels


def pictures_from_latents(
    networks: Networks, latents: Floats
) -> tuple[list[Pixels], list[bool] | None]:
    """Decode, then check, one image at a time: the decoder's memory is the largest of all.

    Args:
        networks: Of a bundle; ``safety`` is used where it has a head, however little memory there is.
        latents: ``[B, C, h, w]``.

    Returns:
        Each image's uint8 pixels ``[height, width, 3]``, and whether it was flagged; None without a safety head.

    Raises:
        EngineError: an engine failed, or the head's scores are not finite.
    """
    with networks.use("decode") as engines:
        decode = engines["decode"]
        images = [decode.run({"latents": np.ascontiguousarray(latent[None])}) for latent in latents]
    pixels = [image["images"][0] for image in images]
    if "safety" not in networks.kinds:
        return pixels, None
    flags: list[bool] = []
    with networks.use("safety") as engines:
        for image in images:
            verdict = engines["safety"].run(image)
            if not np.isfinite(verdict["concept_scores"]).all():
                raise EngineError("the safety head's scores are not finite, no image is returned")
            flags.append(bool(verdict["flags"][0]))
    return pixels, flags
