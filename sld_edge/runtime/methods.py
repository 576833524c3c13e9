"""The guidance methods: what each asks of a call and tells the loop. A new one is an entry here.

The equations are in the bundle's ``advance`` graph, traced from :mod:`sld_edge.runtime.guidance` when the bundle was
made. A method that they can express is an entry of :data:`METHODS` and nothing else: it differs in the numbers that it
gives them. One with other equations changes that module too and serves bundles that are exported from then on; its
entry names the port of ``advance`` by which they are known.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from sld_edge.runtime.guidance import Settings

#: The name of the published method (arXiv 2211.05105).
PUBLISHED: Final = "sld"


@dataclass(frozen=True, kw_only=True, eq=False)
class GuidanceMethod:
    """One way of steering.

    Args:
        name: As users write it.
        summary: A few words for people, after the name.
        told: The numbers that the equations are given, from those of the published method. Each is a number, or
            float64 ``[N]`` with one for each evaluation; ``active`` must stay above 0 where it is.
        preset: The preset whose numbers a call gets that names the method as its ``safety``; empty where none can.
        unused: Fields of :class:`~sld_edge.SafetyConfig` that say nothing; giving one is an error.
        warms_up: Whether it begins to act where the warm-up ends; else it acts from the first evaluation on.
        carries: Whether evaluations before it acts change what it does later, without any momentum.
        by_harm: Whether it steers by one of the bundle's harms at a time: each is a concept of its own, a prompt's
            words choose among them, and words that name one are left out of prompts and of negative prompts.
        port: An input of ``advance`` that only bundles have which know the method; empty where all do.
        reaches: Minimums of a policy under which it may be used, as measured; none until it was. None compares its
            numbers with the minimum's, which says something for the published equations only.
    """

    name: str
    summary: str
    told: Callable[[Settings], Settings]
    preset: str = ""
    unused: frozenset[str] = frozenset()
    warms_up: bool = True
    carries: bool = False
    by_harm: bool = False
    port: str = ""
    reaches: tuple[str, ...] | None = ()


METHODS: Final[dict[str, GuidanceMethod]] = {
    method.name: method
    for method in (
        GuidanceMethod(
            name=PUBLISHED,
            summary="as published",
            told=lambda published: published,
            reaches=None,
        ),
        GuidanceMethod(
            name="adaptive",
            summary="which is stronger",
            told=lambda published: published._replace(adaptive=1.0),
            preset="strong",
            unused=frozenset({"sld_guidance_scale", "sld_warmup_steps", "sld_threshold"}),
            warms_up=False,
            carries=True,
            by_harm=True,
            port="strength",
            reaches=("weak", "medium", "strong"),  # it leaves less in every row of docs/safety.md
        ),
    )
}


def presets_of_methods() -> tuple[str, ...]:
    """Names of methods that a call may give as its ``safety``."""
    return tuple(name for name, method in METHODS.items() if method.preset)
