"""What each input of an exported network is, by family: an unknown name is refused, not guessed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from sld_edge.errors import UnsupportedCheckpoint
from sld_edge.passes.rows import CONTEXT, NARROW, TIME, WIDE

LATENTS, STEP, TEXT, IDS = "sample", "timestep", "encoder_hidden_states", "input_ids"
_PLAIN: Final = {LATENTS: NARROW, STEP: TIME, TEXT: CONTEXT}


class Family(NamedTuple):
    """Inputs of a family's denoiser by role, and why the runtime cannot run it; empty where it can."""

    inputs: Mapping[str, str]
    lacking: str = ""


FAMILIES: Final[dict[str, Family]] = {
    "Stable Diffusion 1 and 2": Family(_PLAIN),
    "Stable Diffusion XL": Family(
        {**_PLAIN, "text_embeds": CONTEXT, "time_ids": CONTEXT},
        "its second text encoder and its sizes are not in the runtime",
    ),
    "latent consistency models": Family(
        {**_PLAIN, "timestep_cond": TIME}, "its guidance embedding is not in the runtime"
    ),
    "IP-Adapter": Family(
        {**_PLAIN, "image_embeds": CONTEXT}, "pictures as prompts are not in the runtime"
    ),
    "ControlNet": Family(
        {**_PLAIN, "controlnet_cond": NARROW, "conditioning_scale": TIME},
        "ControlNet is not in the runtime",
    ),
    "denoisers with ControlNet's residuals": Family(
        {**_PLAIN, "down_block_additional_residuals": WIDE, "mid_block_additional_residual": WIDE},
        "ControlNet is not in the runtime",
    ),
}
#: The one input of each other network.
INPUTS: Final = {
    "text_encoder": frozenset((IDS,)),
    "vae_decoder": frozenset(("latent_sample",)),
    "safety_checker": frozenset(("clip_input", "images")),
}


def denoiser_roles(names: Iterable[str]) -> dict[str, str]:
    """The role of each input of a denoiser that the runtime can run.

    Raises:
        UnsupportedCheckpoint: an input has no role, one is missing, or the family is not in the runtime.
    """
    found = set(names)
    known = {name for family in FAMILIES.values() for name in family.inputs}
    # Residuals are numbered.
    unknown = sorted(name for name in found if name.rsplit(".", 1)[0].rstrip("_0123456789") not in known and
                     name not in known)  # fmt: skip
    if unknown:
        raise UnsupportedCheckpoint(
            "the UNet has an input whose role is not known", value=unknown[0],
            hint=f"known are {', '.join(sorted(known))}",
        )  # fmt: skip
    missing = sorted(set(_PLAIN) - found)
    if missing:
        raise UnsupportedCheckpoint("the UNet lacks an input", value=missing[0])
    bare = {
        name if name in known else name.rsplit(".", 1)[0].rstrip("_0123456789") for name in found
    }
    for title, family in FAMILIES.items():
        if bare <= set(family.inputs):
            if family.lacking:
                raise UnsupportedCheckpoint(
                    f"{title} cannot be run: {family.lacking}", value=sorted(found - set(_PLAIN))
                )
            return dict(family.inputs)
    raise UnsupportedCheckpoint("the UNet's inputs are those of no one family", value=sorted(found))


def check_inputs(network: str, names: Iterable[str]) -> None:
    """Refuse another network than the UNet whose inputs are not those that are known.

    Raises:
        UnsupportedCheckpoint: naming the input.
    """
    odd = sorted(set(names) ^ INPUTS[network])
    if odd:
        raise UnsupportedCheckpoint(
            f"the {network} has other inputs than {', '.join(sorted(INPUTS[network]))}",
            value=odd[0],
        )
