"""What schedulers are called: canonical names, diffusers' class names and the labels of other interfaces."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, Final, NamedTuple

from sld_edge.errors import InvalidInput
from sld_edge.runtime.schedulers.curves import SUFFIXES
from sld_edge.runtime.schedulers.families import FAMILIES
from sld_edge.runtime.schedulers.family import Family, Variant

_CURVE_SETTINGS: Final = {suffix: key for key, suffix in SUFFIXES.items()}


class _Names(NamedTuple):
    #: Canonical names without a curve.
    bases: dict[str, Variant]
    #: Canonical name → family and the settings the name itself asks for.
    known: dict[str, tuple[Family, dict[str, Any]]]
    #: Any name without punctuation → canonical name.
    by_key: dict[str, str]


def _names() -> _Names:
    return _names_of(tuple(FAMILIES.values()))


@lru_cache(maxsize=4)
def _names_of(families: tuple[Family, ...]) -> _Names:
    names = _Names({}, {}, {})
    for family in families:
        for base in _bases_of(family):
            names.bases[base.name] = base
            names.known[base.name] = (family, dict(base.settings))
            labels = (base.name, *base.aliases)
            for label in labels:
                names.by_key[_key(label)] = base.name
            for suffix in family.curves:
                name = f"{base.name}_{suffix}"
                names.known[name] = (family, {**base.settings, _CURVE_SETTINGS[suffix]: True})
                for label in labels:
                    names.by_key[_key(f"{label}_{suffix}")] = name
    return names


def _bases_of(family: Family) -> Iterator[Variant]:
    """What a family is called without a curve: by its own name, by diffusers' and by its variants'."""
    aliases = (*family.aliases, family.class_name)
    yield Variant(name=family.name, label=family.label, settings={}, aliases=aliases)
    yield from family.variants


def _key(name: str) -> str:
    """``name`` without case, spaces and punctuation; ``++`` reads ``pp``."""
    return re.sub(r"[^a-z0-9]", "", name.lower().replace("++", "pp"))


def scheduler_names() -> tuple[str, ...]:
    """The canonical scheduler names, sorted."""
    return tuple(sorted(_names().known))


def scheduler_labels() -> dict[str, str]:
    """Canonical name without a curve → what other interfaces call it."""
    return {name: base.label for name, base in _names().bases.items()}


def family_of(scheduler: str) -> Family:
    """The family of a scheduler, by its canonical name."""
    family, _ = _names().known[scheduler]
    return family


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
    names = _names()
    hint = f"use one of {', '.join(sorted(names.bases))}; many take _karras, _exponential or _beta"
    asked = config.get("_class_name") if name is None else name
    if not isinstance(asked, str) or _key(asked) not in names.by_key:
        if name is None:
            raise InvalidInput(
                "the checkpoint's scheduler is not supported", value=asked, hint=hint
            )
        raise InvalidInput("unknown scheduler", value=name, hint=hint)
    family, implied = names.known[names.by_key[_key(asked)]]
    return family, dict(implied)
