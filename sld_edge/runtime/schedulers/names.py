"""What schedulers are called: canonical names, diffusers' class names and the labels of other interfaces."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from sld_edge.errors import InvalidInput
from sld_edge.runtime.schedulers.curves import SUFFIXES
from sld_edge.runtime.schedulers.families import FAMILIES, Family

_CURVE_SETTINGS: Final = {suffix: key for key, suffix in SUFFIXES.items()}
_ORDER_3: Final = {"solver_order": 3}
_SDE: Final = {"algorithm_type": "sde-dpmsolver++"}
#: Canonical name without a curve → (family, settings the name itself asks for).
_BASES: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    **{name: (name, {}) for name in FAMILIES},
    "dpmpp_2m_sde": ("dpmpp_2m", _SDE),
    "dpmpp_3m": ("dpmpp_2m", _ORDER_3),
    "dpmpp_3m_sde": ("dpmpp_2m", {**_SDE, **_ORDER_3}),
    "dpmpp_2s_sde": ("dpmpp_2s", _SDE),
    "dpmpp_3s": ("dpmpp_2s", _ORDER_3),
    "dpmpp_3s_sde": ("dpmpp_2s", {**_SDE, **_ORDER_3}),
}
#: Further names of some bases.
_ALIASES: Final = {
    "plms": "pndm",
    "euler_a": "euler_ancestral",
    "k_euler": "euler",
    "k_euler_a": "euler_ancestral",
    "k_lms": "lms",
    "k_dpmpp_2m": "dpmpp_2m",
    "k_dpmpp_2m_sde": "dpmpp_2m_sde",
    "k_dpmpp_sde": "dpmpp_sde",
    "k_heun": "heun",
    "dpm2": "kdpm2",
    "dpm2_a": "kdpm2_ancestral",
    "dpm2_ancestral": "kdpm2_ancestral",
    "k_dpm_2": "kdpm2",
    "k_dpm_2_a": "kdpm2_ancestral",
    "k_dpm_2_ancestral": "kdpm2_ancestral",
    "sde_dpmpp_2m": "dpmpp_2m_sde",
    **{family.class_name: family.name for family in FAMILIES.values()},
}

#: Canonical name → (family, settings the name itself asks for).
_NAMES: Final[dict[str, tuple[str, dict[str, Any]]]] = {}
#: Any name without punctuation → canonical name.
_BY_KEY: Final[dict[str, str]] = {}


def _key(name: str) -> str:
    """``name`` without case, spaces and punctuation; ``++`` reads ``pp``."""
    return re.sub(r"[^a-z0-9]", "", name.lower().replace("++", "pp"))


def _add_names() -> None:
    for name, (family, implied) in _BASES.items():
        labels = [name, *(alias for alias, base in _ALIASES.items() if base == name)]
        _NAMES[name] = (family, implied)
        for label in labels:
            _BY_KEY[_key(label)] = name
        for suffix in FAMILIES[family].curves:
            _NAMES[f"{name}_{suffix}"] = (family, {**implied, _CURVE_SETTINGS[suffix]: True})
            for label in labels:
                _BY_KEY[_key(f"{label}_{suffix}")] = f"{name}_{suffix}"


_add_names()


def scheduler_names() -> tuple[str, ...]:
    """The canonical scheduler names, sorted."""
    return tuple(sorted(_NAMES))


def family_from_name(name: str | None, config: Mapping[str, Any]) -> tuple[Family, dict[str, Any]]:
    """The family that ``name`` (or, for ``None``, the checkpoint) asks for.

    Args:
        name: A canonical name, a diffusers class name or a common label; ``None`` for the
            checkpoint's own ``_class_name``.
        config: The checkpoint's scheduler configuration.

    Returns:
        The family and the settings that the name itself implies.

    Raises:
        InvalidInput: No such scheduler here.
    """
    hint = f"use one of {', '.join(sorted(_BASES))}; many take _karras, _exponential or _beta"
    asked = config.get("_class_name") if name is None else name
    if not isinstance(asked, str) or _key(asked) not in _BY_KEY:
        if name is None:
            raise InvalidInput(
                "the checkpoint's scheduler is not supported", value=asked, hint=hint
            )
        raise InvalidInput("unknown scheduler", value=name, hint=hint)
    family, implied = _NAMES[_BY_KEY[_key(asked)]]
    return FAMILIES[family], dict(implied)
