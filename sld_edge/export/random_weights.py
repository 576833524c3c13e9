"""Random weights drawn straight into a network, by all cores, instead of by its layers' own initialisation.

torch's layers draw their weights one after the other on one core, and some networks then draw them again; at SD 1.5's
size that is most of a minute. Here every piece of a tensor has a generator of its own, so that pieces are drawn at the
same time and the weights are the same however many cores there are.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

#: Elements that one generator draws.
_PIECE = 1 << 22
#: Spread of embeddings, as CLIP's are initialised.
_EMBEDDING = 0.02


class Make(Protocol):
    """Builds a network with random weights in float32."""

    def __call__(self, build: Callable[[], Any]) -> Any:
        """The network that ``build`` gives, with weights."""
        ...


def by_torch(build: Callable[[], Any]) -> Any:
    """The network as its layers initialise themselves."""
    return build()


def drawn(seed: int) -> Make:
    """A maker that draws all weights itself.

    Args:
        seed: Of the weights; the same seed, name and shape give the same tensor.
    """

    def make(build: Callable[[], Any]) -> Any:
        with torch.device("meta"):
            network = build()
        network = network.to_empty(device="cpu").to(torch.float32)
        with torch.no_grad():
            _fill(network, seed)
        return network

    return make


def _fill(network: Any, seed: int) -> None:
    for name, buffer in network.named_buffers():
        if not name.endswith("position_ids"):
            raise AssertionError(f"nobody said what the buffer {name} holds")
        buffer.copy_(torch.arange(buffer.shape[-1]).expand_as(buffer))
    drawing: list[tuple[NDArray[np.float32], float, list[int]]] = []
    for name, parameter in network.named_parameters():
        spread = _spread(name, parameter)
        if spread is None:
            parameter.fill_(1.0 if name.endswith("weight") else 0.0)
            continue
        key = [seed, zlib.crc32(name.encode())]
        flat = parameter.detach().view(-1).numpy()
        drawing += [(piece, spread, [*key, index]) for index, piece in enumerate(_pieces(flat))]
    with ThreadPoolExecutor() as pool:
        for _ in pool.map(_draw, drawing):
            pass


def _spread(name: str, parameter: torch.Tensor) -> float | None:
    """Standard deviation of a weight; None for norms' weights and for biases, which are 1 and 0."""
    if name.endswith(("embedding.weight", "class_embedding")):
        return _EMBEDDING
    if parameter.ndim < 2:
        return None
    return 1.0 / math.sqrt(
        3.0 * parameter[0].numel()
    )  # that of torch's linear layers and convolutions


def _pieces(flat: NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
    for start in range(0, flat.size, _PIECE):
        yield flat[start : start + _PIECE]


def _draw(work: tuple[NDArray[np.float32], float, list[int]]) -> None:
    piece, spread, key = work
    np.random.Generator(np.random.SFC64(key)).standard_normal(out=piece, dtype=np.float32)
    piece *= np.float32(spread)
