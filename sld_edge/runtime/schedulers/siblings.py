"""Solvers' names: which a class takes for its own, and what it makes of those of its sibling classes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from sld_edge.runtime.schedulers.families import Family

#: Values of ``solver_type`` and ``algorithm_type`` that a class takes for its own.
SOLVER_TYPES: Final[Mapping[str, tuple[str, ...]]] = {
    "dpmpp_2m": ("midpoint", "heun"),
    "dpmpp_2s": ("midpoint", "heun"),
    "edm_dpmpp_2m": ("midpoint", "heun"),
    "deis": ("logrho",),
    "unipc": ("bh1", "bh2"),
}
ALGORITHMS: Final[Mapping[str, tuple[str, ...]]] = {
    "dpmpp_2m": ("dpmsolver++", "dpmsolver", "sde-dpmsolver++", "sde-dpmsolver"),
    "dpmpp_2s": ("dpmsolver++", "dpmsolver", "sde-dpmsolver++"),
    "edm_dpmpp_2m": ("dpmsolver++", "sde-dpmsolver++"),
    "deis": ("deis",),
}
_DPM_SIBLINGS: Final[Mapping[str, str]] = {
    **dict.fromkeys(("logrho", "bh1", "bh2"), "midpoint"),
    "deis": "dpmsolver++",
}
#: What a class makes of the value of a sibling; any other value is an error there too.
_SIBLINGS: Final[Mapping[str, Mapping[str, str]]] = {
    "dpmpp_2m": _DPM_SIBLINGS,
    "dpmpp_2s": _DPM_SIBLINGS,
    "edm_dpmpp_2m": _DPM_SIBLINGS,
    "deis": {
        **dict.fromkeys(("midpoint", "heun", "bh1", "bh2"), "logrho"),
        **dict.fromkeys(("dpmsolver", "dpmsolver++"), "deis"),
    },
    "unipc": dict.fromkeys(("midpoint", "heun", "logrho"), "bh2"),
}


def translated(family: Family, values: Mapping[str, Any]) -> dict[str, Any]:
    """Solver names of a sibling class, mapped the way the family's diffusers class maps them."""
    known = _SIBLINGS.get(family.name, {})
    return {
        key: known[value]
        for key in ("solver_type", "algorithm_type")
        if isinstance(value := values.get(key), str) and value in known
    }
