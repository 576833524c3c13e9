"""Which engines a bundle needs, and the shapes each of them is built for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sld_edge.bundle import Bundle
from sld_edge.errors import InvalidInput
from sld_edge.kinds import FEWEST_ROWS, PLAIN_BRANCHES
from sld_edge.manifest import Graph, Shape

#: Smallest, usual and largest shape of every input.
Profile = Mapping[str, tuple[tuple[int, ...], ...]]
#: Rows of scheduler state: one (DDIM) to the most that a multistep scheduler keeps, two being usual.
_STATE_ROWS = (1, 2, 8)


@dataclass(frozen=True, kw_only=True)
class EngineSpec:
    """One engine to build: a graph and the profiles it is built for."""

    label: str
    graph: Graph
    profiles: tuple[Profile, ...]


def specs_from_bundle(
    bundle: Bundle,
    *,
    shapes: tuple[Shape, ...] = (),
    branches: tuple[int, ...] = (2, 3),
    one_engine: bool = True,
) -> tuple[EngineSpec, ...]:
    """Every engine that a bundle's graphs need.

    Static shapes for all that is heavy: a profile for each pixel size and each number of branches. ``text`` is built
    for one row, ``unet`` for one image and for a size's planned batch, ``decode`` and ``safety`` for one picture.

    Args:
        shapes: Sizes and batches; the bundle's own when empty.
        branches: Numbers of branches R in use: 2 without the safety row, 3 with it, 2 + K with K concepts.
        one_engine: Put a graph's profiles into one engine. Each profile gets kernels of its own for its static shapes,
            the weights are kept once (an SD 1.5 unet for R = 2 and 3: 1.73 GB instead of 3.41 GB).

    Raises:
        InvalidInput: a size the bundle lacks, or a number of branches below 2.
    """
    if not branches or min(branches) < 2 or len(set(branches)) != len(branches):
        raise InvalidInput(
            "numbers of branches are 2 or more, each once", value=branches, hint="e.g. 2,3"
        )
    specs: list[EngineSpec] = []
    for graph in bundle.manifest.graphs:
        wanted = _wanted(bundle, graph, shapes, branches)
        profiles = [(name, profile_from_sizes(graph, sizes)) for name, sizes in wanted]
        if one_engine and len(profiles) > 1:
            profiles_of_all = tuple(profile for _, profile in profiles)
            specs.append(
                EngineSpec(label=_stem(graph), graph=graph, profiles=_unique(profiles_of_all))
            )
            continue
        specs += [
            EngineSpec(label=f"{_stem(graph)}{name}", graph=graph, profiles=(profile,))
            for name, profile in profiles
        ]
    return tuple(specs)


def profile_from_sizes(graph: Graph, sizes: Mapping[str, tuple[int, int, int]]) -> Profile:
    """Shapes of every input with the free dimensions filled in (smallest, usual, largest)."""
    return {
        tensor.name: tuple(
            tuple(size if isinstance(size, int) else sizes[size][which] for size in tensor.shape)
            for which in range(3)
        )
        for tensor in graph.inputs
    }


def _wanted(
    bundle: Bundle, graph: Graph, shapes: tuple[Shape, ...], branches: tuple[int, ...]
) -> list[tuple[str, dict[str, tuple[int, int, int]]]]:
    """Of one graph: the end of each label, and the free dimensions' sizes."""
    for shape in shapes:
        bundle.graph("unet", height=shape.height, width=shape.width)
    model = bundle.manifest.model
    result: list[tuple[str, dict[str, tuple[int, int, int]]]] = []
    if graph.kind == "text":
        return [("", {"N": _fixed(1)})]
    for shape in shapes or bundle.manifest.shapes:
        if graph.height and (graph.height, graph.width) != (shape.height, shape.width):
            continue
        if graph.kind == "unet":
            result += [
                (f"-r{r}-b{batch}", {"R": _fixed(r), "B": _fixed(batch)})
                for batch in sorted({1, shape.batch})
                for r in branches
            ]
        elif graph.kind in ("decode", "safety"):
            result.append(("", {"B": _fixed(1)}))
        else:
            rows = {
                "S": _STATE_ROWS,
                "columns": (_STATE_ROWS[0] + 2, _STATE_ROWS[1] + 2, _STATE_ROWS[2] + 2),
                "B": (1, shape.batch, shape.batch),
                "C": _fixed(model.latent_channels),
                "h": _fixed(shape.height // model.vae_scale_factor),
                "w": _fixed(shape.width // model.vae_scale_factor),
            }
            name = f"-{shape.height}x{shape.width}-b{shape.batch}"
            result += [
                (f"{name}-r{r}", {**rows, "R": _fixed(r), "K": _fixed(r - PLAIN_BRANCHES)})
                for r in sorted({max(r, FEWEST_ROWS) for r in branches})
            ]
    return result


def _fixed(size: int) -> tuple[int, int, int]:
    return size, size, size


def _stem(graph: Graph) -> str:
    return graph.file.rsplit("/", 1)[-1].removesuffix(".onnx")


def _unique(profiles: tuple[Profile, ...]) -> tuple[Profile, ...]:
    return tuple(profile for n, profile in enumerate(profiles) if profile not in profiles[:n])
