"""Whether a graph's weights can be had in half precision.

OpenVINO clips what is beyond its range when it converts weights, and makes NaN its largest number: a broken network
would give finite values, and a picture that looks like one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sld_edge.engines.base import Recipe
from sld_edge.engines.onnx_shapes import message_bytes, message_fields, message_text
from sld_edge.errors import BundleError

BEYOND_HALF = "its weights are not finite or beyond what half precision holds"
_LARGEST = float(np.finfo(np.float16).max)
_FLOAT32 = 1
#: Elements looked at together.
_PIECE = 1 << 24
#: What was found, by the digests of the graph and its weights.
_FOUND: dict[tuple[tuple[str, str], ...], bool] = {}


def fits_half(recipe: Recipe) -> bool:
    """Whether every float32 weight is finite and within half precision's range.

    Raises:
        BundleError: the graph cannot be read.
    """
    key = tuple(sorted(recipe.digests.items()))
    if not key or key not in _FOUND:
        _FOUND[key] = all(
            bool((np.abs(part) <= _LARGEST).all())  # a comparison with NaN is false here
            for weights in _weights(recipe.file)
            for part in np.array_split(weights, math.ceil(max(weights.size, 1) / _PIECE))
        )
    return _FOUND[key]


def _weights(file: Path) -> Iterator[NDArray[np.float32]]:
    """Every float32 initializer as a flat array, mapped where it lies in a weight file."""
    try:
        model = memoryview(file.read_bytes())
        [graph] = [message_bytes(value) for number, value in message_fields(model) if number == 7]
        for number, value in message_fields(graph):
            if number == 5:
                yield from _values(message_bytes(value), file.parent)
    except (OSError, ValueError, IndexError, KeyError) as error:
        raise BundleError(
            f"a graph's weights cannot be read ({type(error).__name__})",
            value=str(file),
            hint="run: sld-export --verify BUNDLE",
        ) from error


def _values(tensor: memoryview, folder: Path) -> Iterator[NDArray[np.float32]]:
    outside: dict[str, str] = {}
    inside: list[memoryview] = []
    kind = 0
    for number, value in message_fields(tensor):
        if number == 2 and isinstance(value, int):
            kind = value
        elif number in (4, 9):
            inside.append(message_bytes(value))
        elif number == 13:
            entry = dict(message_fields(message_bytes(value)))
            outside[message_text(entry[1])] = message_text(entry[2])
    if kind != _FLOAT32:
        return
    if "location" in outside:
        count = int(outside["length"]) // 4
        offset = int(outside.get("offset", "0"))
        yield np.memmap(folder / outside["location"], np.float32, "r", offset, (count,))
    for data in inside:
        yield np.frombuffer(data, np.float32)
