"""The scheduler families. A new one is a line here and a module with its :class:`Family` and its table."""

from __future__ import annotations

from typing import Final

from sld_edge.runtime.schedulers.deis import DEIS
from sld_edge.runtime.schedulers.dpm import DPMPP_2M, DPMPP_2S
from sld_edge.runtime.schedulers.edm import EDM_DPMPP_2M, EDM_EULER
from sld_edge.runtime.schedulers.family import Family
from sld_edge.runtime.schedulers.lms import LMS
from sld_edge.runtime.schedulers.one_step import DDIM, DDPM, EULER, EULER_ANCESTRAL, LCM, TCD
from sld_edge.runtime.schedulers.pndm import PNDM
from sld_edge.runtime.schedulers.two_evaluations import DPMPP_SDE, HEUN, KDPM2, KDPM2_ANCESTRAL
from sld_edge.runtime.schedulers.unipc import UNIPC

#: Canonical name → family.
FAMILIES: Final[dict[str, Family]] = {
    family.name: family
    for family in (
        DDIM, PNDM, EULER, EULER_ANCESTRAL, DPMPP_2M, LMS, UNIPC, LCM, TCD, DDPM, HEUN, KDPM2, KDPM2_ANCESTRAL,
        DPMPP_SDE, DPMPP_2S, DEIS, EDM_EULER, EDM_DPMPP_2M,
    )
}  # fmt: skip
