"""Where the noise of every picture comes from, in the words of the record: enough to draw it again."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

import numpy as np

from sld_edge.runtime.noise import Floats, Generator, draw

Origin = dict[str, Any]


def origins_of(generators: Any, count: int) -> list[Origin]:
    """What the record says of each picture's noise if it were drawn now; nothing is drawn.

    Args:
        generators: One generator for the whole batch, or a list with one for each picture.
        count: Number of pictures.
    """
    many = isinstance(generators, (list, tuple))
    each = list(generators) if many else [generators] * count
    return [{**_origin(one), **_shared_with(each, index)} for index, one in enumerate(each)]


def drawn_noise(shape: tuple[int, ...], generators: Any) -> tuple[Floats, list[Origin]]:
    """Unit Gaussian noise ``[B, …]`` the way diffusers draws it, and where each picture's comes from.

    A generator that is in a list twice has moved on when the second picture's turn comes: its place in the stream is
    read at each draw.
    """
    if not isinstance(generators, (list, tuple)):
        origins = origins_of(generators, shape[0])
        return draw(generators, shape), origins
    origins, parts = [], []
    for index, one in enumerate(generators):
        origins.append({**_origin(one), **_shared_with(generators, index)})
        parts.append(draw(one, (1, *shape[1:])))
    return np.concatenate(parts), origins


def generator_from_record(record: Mapping[str, Any]) -> Generator | None:
    """A generator that stands where the one of a record stood, or None where the record has no seed.

    Args:
        record: A picture's: of ``output.records()``, ``output.record["images"]`` or
            :func:`~sld_edge.runtime.png.read_record`. With ``noise_with`` in it, the named pictures of that call drew
            from one generator, and only the same call makes them again.

    Raises:
        InvalidInput: what is there is no place in a stream.
    """
    if record.get("seed") is None:
        return None
    return Generator(
        record["seed"],
        record.get("seed_device", "cpu"),
        offset=record.get("seed_offset", 0),
        kept=record.get("seed_kept"),
        **({"threads": record["seed_threads"]} if "seed_threads" in record else {}),
    )


def _origin(generator: Any) -> Origin:
    if isinstance(generator, Generator):
        return generator.place()
    device = str(generator.device)
    return {"seed": _torch_seed(generator, device), "seed_device": device.partition(":")[0]}


def _torch_seed(generator: Any, device: str) -> int | None:
    """The seed of a torch generator that nothing was drawn from since; where it stands otherwise cannot be told."""
    seed = int(generator.initial_seed())
    fresh = import_module("torch").Generator(device).manual_seed(seed)
    return seed if generator.get_state().equal(fresh.get_state()) else None


def _shared_with(generators: Any, index: int) -> Origin:
    """The pictures that drew from the same generator, where there are several."""
    together = [place for place, one in enumerate(generators) if one is generators[index]]
    return {"noise_with": together} if len(together) > 1 else {}
