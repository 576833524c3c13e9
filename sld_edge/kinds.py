"""What each kind of graph is like, and what its ports are for: the one place that knows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sld_edge.manifest import GraphKind, PortRole

#: Branches that hold no safety concept: unconditional and prompt.
PLAIN_BRANCHES = 2
#: Rows of predictions that ``advance`` always has; with safety off the third holds zeros.
FEWEST_ROWS = 3


@dataclass(frozen=True, kw_only=True)
class Traits:
    """How a kind of graph is run.

    Args:
        may_lower: May compute in a lower precision where the user allows it.
        beside_denoiser: A dozen element-wise operations between two runs of the denoiser: in fp32 and on one thread,
            on the host unless the denoiser's data is on a device; no accelerator's call overhead is worth it.
        roles: Role of each port by its name; a name that ends in ``*`` stands for all that begin so.
    """

    may_lower: bool = False
    beside_denoiser: bool = False
    roles: Mapping[str, PortRole]


#: The text encoder is run once a prompt, and neither the guidance equations nor the safety head are worth a changed
#: verdict: none of them is lowered.
KINDS: Mapping[GraphKind, Traits] = {
    "text": Traits(roles={"input_ids": "tokens", "k_*": "context", "v_*": "context"}),
    "unet": Traits(
        may_lower=True,
        roles={
            "latents": "latents", "input_scale": "table", "timestep": "table",
            "k_*": "context", "v_*": "context", "noise_pred": "prediction",
        },
    ),
    "advance": Traits(
        beside_denoiser=True,
        roles={
            "noise_pred": "prediction", "state": "state", "momentum": "state", "strength": "state",
            "noise": "noise", "matrix": "table", "settings": "table",
            "next_state": "state", "next_momentum": "state", "next_strength": "state",
        },
    ),
    "decode": Traits(
        may_lower=True, roles={"latents": "latents", "images": "image", "raw_mean": "check"}
    ),
    "safety": Traits(
        roles={
            "images": "image", "concept_scores": "verdict", "special_scores": "verdict",
            "flags": "verdict", "raw_mean": "check",
        }
    ),
}  # fmt: skip


def role_of(kind: str, name: str) -> PortRole | None:
    """The role of a port in the graphs that ``sld-export`` writes; None where there is no such port."""
    traits = next((traits for known, traits in KINDS.items() if known == kind), None)
    for pattern, role in () if traits is None else traits.roles.items():
        if name == pattern or (pattern.endswith("*") and name.startswith(pattern[:-1])):
            return role
    return None
