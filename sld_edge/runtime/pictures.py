"""Latents → pixels and verdicts."""

from __future__ import annotations

import numpy as np

from sld_edge.engines.base import Arrays
from sld_edge.errors import EngineError
from sld_edge.manifest import RAW_MEAN
from sld_edge.runtime.memories.space import Floats
from sld_edge.runtime.networks import Networks
from sld_edge.runtime.output import Pixels

_HINT = "allow no lower precision than fp32, or use an fp32 bundle"


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
        EngineError: an engine failed, or what the decoder or the head computed is not finite.
    """
    pixels: list[Pixels] = []
    with networks.use("decode") as engines:
        for latent in latents:
            decoded = engines["decode"].run({"latents": np.ascontiguousarray(latent[None])})
            _refuse_invalid(decoded)
            pixels.append(decoded["images"][0])
    if "safety" not in networks.kinds:
        return pixels, None
    with networks.use("safety") as engines:
        head = engines["safety"]
        flags = [_flagged(head.run({"images": picture[None]})) for picture in pixels]
    return pixels, flags


def _refuse_invalid(decoded: Arrays) -> None:
    """Pixels cannot say that they were NaN: the decoder's own values can.

    Without them only a picture that is one colour throughout can be judged: NaN gives one, a decoder hardly ever does.
    """
    if RAW_MEAN in decoded:
        if not np.isfinite(decoded[RAW_MEAN]).all():
            raise EngineError(
                "the decoder's values are not finite, no image is returned", hint=_HINT
            )
    elif np.ptp(decoded["images"]) == 0:
        raise EngineError(
            "the decoder gave one colour throughout, no image is returned",
            hint="export the checkpoint again: the new graph says whether values are finite",
        )


def _flagged(verdict: Arrays) -> bool:
    """The head's verdict, which stands only on scores that are finite: engines compare NaN as they like."""
    if not all(np.isfinite(verdict[name]).all() for name in verdict if name != "flags"):
        raise EngineError(
            "the safety head's scores are not finite, no image is returned", hint=_HINT
        )
    return bool(verdict["flags"][0]) or bool((verdict["concept_scores"] > 0).any())
