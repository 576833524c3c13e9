"""Choose a backend by what is asked for and what the machine has."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from msgspec import UNSET

from sld_edge.bundle import Bundle
from sld_edge.engines import backends
from sld_edge.engines.base import Engine, EngineOptions, Recipe
from sld_edge.engines.chosen import ChosenEngine
from sld_edge.engines.cuda.session import CudaSession
from sld_edge.errors import InvalidInput
from sld_edge.kinds import KINDS
from sld_edge.manifest import Graph, Precision


def load(
    bundle: Bundle, graph: Graph, options: EngineOptions, session: CudaSession | None = None
) -> Engine:
    """The engine that will run one of a bundle's graphs; nothing is acquired yet.

    Args:
        bundle: Where the graph lies.
        graph: What to run.
        options: How.
        session: The device that engines of one pipeline share; None gives the engine one of its own.

    Raises:
        InvalidInput: no backend of that name.
        MissingDependency: the backend's package is not installed.
    """
    check_names(options)
    order = backends.Order(recipe=_recipe(bundle, graph, options, session), bundle=bundle)
    chain = backends.chain_for(order)
    if len(chain) == 1:
        return chain[0].make(order, ())
    return ChosenEngine(
        graph, [(partial(one.make, order), one.gives_way_for(order)) for one in chain]
    )


def check_names(options: EngineOptions) -> None:
    """Refuse a backend or an execution provider that there is none of.

    What this machine has is looked at only for an execution provider that has no entry in the table.

    Raises:
        InvalidInput: naming what there is.
    """
    names = [backend.name for backend in backends.BACKENDS]
    if options.backend not in ("auto", *names):
        raise InvalidInput(
            "unknown engine", value=options.backend, hint=f"use auto, {', '.join(names)}"
        )
    serving = [b for b in backends.BACKENDS if options.backend in ("auto", b.name)]
    known = dict.fromkeys(provider for backend in serving for provider in backend.providers())
    wanted = options.provider.split(",")
    for name in () if wanted == ["auto"] else wanted:
        if name not in known and not any(backend.knows(name) for backend in serving):
            raise InvalidInput(
                f"unknown execution provider of {options.backend}",
                value=name,
                hint=f"use auto, {', '.join(known)}",
            )


def _recipe(
    bundle: Bundle, graph: Graph, options: EngineOptions, session: CudaSession | None
) -> Recipe:
    if not KINDS[graph.kind].may_lower:
        options = replace(options, compute_precision="fp32")
    return Recipe(
        graph=graph,
        file=bundle.file(graph.file),
        variants={name: bundle.file(file) for name, file in graph.variants.items()},
        options=options,
        stored=_stored(bundle, graph),
        weights=tuple(bundle.file(name) for name in graph.weights),
        digests={name: bundle.manifest.files[name].sha256 for name in (graph.file, *graph.weights)},
        cache=bundle.cache_folder(),
        int8=_in_8_bits(bundle, graph, options),
        session=session,
    )


def _stored(bundle: Bundle, graph: Graph) -> Precision:
    """The equations are stored in fp32 in every bundle."""
    return "fp32" if KINDS[graph.kind].beside_denoiser else bundle.manifest.precision


def _in_8_bits(bundle: Bundle, graph: Graph, options: EngineOptions) -> Recipe | None:
    """The recipe of a graph's 8-bit file; never cached, since compiled weights would not be those of the file."""
    if graph.int8 is UNSET:
        return None
    names = (graph.int8.file, *graph.int8.weights)
    return Recipe(
        graph=graph,
        file=bundle.file(graph.int8.file),
        variants={},
        options=options,
        stored=_stored(bundle, graph),
        weights=tuple(bundle.file(name) for name in graph.int8.weights),
        digests={name: bundle.manifest.files[name].sha256 for name in names},
        group=graph.int8.group,
    )
