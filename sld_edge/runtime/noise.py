"""torch's Gaussian random numbers without torch, so that a seed makes the same picture.

The CPU stream is mt19937 with Box–Muller as ATen's ``normal_fill`` does it; the CUDA stream is Philox 4×32-10 with
cuRAND's Box–Muller as ATen's distribution kernels lay it out over threads.

The CPU stream equals torch's on x86 with AVX2 or better bit by bit (see :mod:`.box_muller` for other builds), which
is checked over many shapes, seeds and sequences. It is float32's: ``torch.randn`` in half precision draws the last 16
numbers another way where the count is 16 or more and no multiple of 16: never for pictures whose sides are multiples
of 16 pixels.

The CUDA stream's Philox rounds are checked against the known answers published with Random123 (Salmon et al., SC'11),
the layout was written from ATen's description and has not been run beside a GPU.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sld_edge.errors import InvalidInput
from sld_edge.plain import plain_list, plain_text
from sld_edge.runtime.box_muller import gaussians
from sld_edge.runtime.checks import real_number, whole_number

Floats = NDArray[np.float32]

_BLOCK = 16
_TWO_PI = 2.0 * math.pi
#: CUDA kernels draw for blocks of 256 threads, four numbers a thread and call.
_CUDA_BLOCK = 256
_CUDA_UNROLL = 4
#: More than any card keeps resident (its multiprocessors × 2048).
_MOST_CUDA_THREADS = 1 << 22
_CUDA_THREADS = 16 * 1536
#: Going further than this through a stream takes minutes: no sequence of pictures gets there.
_FARTHEST = 1 << 36


class Generator:
    """A stream of unit Gaussian numbers equal to a torch generator's after ``manual_seed(seed)``.

    On ``"cpu"`` every bit is that of torch's builds for x86 with AVX2. The stream of ``"cuda"`` was written from the
    published algorithm and layout; its first numbers are those that torch is known to give, and no card was beside it.

    Args:
        seed: Whole number in −2^63 … 2^64−1, as torch takes.
        device: ``"cpu"``, or ``"cuda"`` for the stream of a torch generator on an NVIDIA card.
        threads: For ``"cuda"``, threads the card keeps resident (multiprocessors × threads on each). Draws
            of up to this many numbers do not depend on it; the default is the smallest current cards'.
        offset: Start behind so many draws, as :attr:`offset` counts them: the generator then stands where the one
            with that offset stood. Only records need it.
        kept: For ``"cpu"``, a second number of a pair that waits to be drawn, see :meth:`place`.

    Raises:
        InvalidInput: the seed is not such a number, or the device is unknown.

    >>> from sld_edge import Generator
    >>> noise = Generator(7).randn((1, 4, 8, 8))
    >>> noise.shape, noise.dtype.name
    ((1, 4, 8, 8), 'float32')
    >>> bool((noise == Generator(7).randn((1, 4, 8, 8))).all())
    True
    """

    def __init__(
        self,
        seed: int,
        device: str = "cpu",
        *,
        threads: int = _CUDA_THREADS,
        offset: int = 0,
        kept: float | None = None,
    ) -> None:
        device = plain_text("device", device, "use cpu or cuda")
        if device not in ("cpu", "cuda"):
            raise InvalidInput("unknown seed device", value=device, hint="use cpu or cuda")
        self.seed = whole_number("seed", seed, low=-(2**63), high=2**64 - 1)
        self.device = device
        self._threads = whole_number("threads", threads, low=_CUDA_BLOCK, high=_MOST_CUDA_THREADS)
        self._offset = whole_number("offset", offset, low=0, high=_FARTHEST)
        self._twister = np.random.MT19937()
        # NumPy seeds the legacy way from a whole number, which is torch's: only the low 32 bits count.
        self._twister._legacy_seeding(self.seed & 0xFFFFFFFF)
        if device == "cpu" and self._offset:
            self._twister.random_raw(self._offset, output=False)
        self._second = None if kept is None else real_number("kept", kept, "a number of a record")

    @property
    def offset(self) -> int:
        """How far it has moved on: 32-bit words drawn on ``"cpu"``, rounds of the counter on ``"cuda"``."""
        return self._offset

    def place(self) -> dict[str, Any]:
        """Where it stands, for a record: :func:`~sld_edge.runtime.origin.generator_from_record` goes back there.

        ``seed``, ``seed_device`` and ``seed_offset``; with ``seed_kept`` a number of a pair is left over from a draw of
        fewer than 16, and ``seed_threads`` is there where a card of another size than the usual was asked for.
        """
        place: dict[str, Any] = {
            "seed": self.seed,
            "seed_device": self.device,
            "seed_offset": self._offset,
        }
        if self._second is not None:
            place["seed_kept"] = self._second
        if self.device == "cuda" and self._threads != _CUDA_THREADS:
            place["seed_threads"] = self._threads
        return place

    def randn(self, shape: Sequence[int]) -> Floats:
        """The next ``prod(shape)`` numbers.

        Args:
            shape: Of the array; whole numbers of 0 or more.

        Returns:
            A float32 array of that shape.

        Raises:
            InvalidInput: the shape is none.
        """
        sizes = plain_list("shape", shape)
        shape = tuple(whole_number("shape", size, low=0) for size in sizes)
        count = math.prod(shape)
        if self.device == "cuda":
            values = self._philox(count)
        elif count >= _BLOCK:
            values = self._filled(count)
        else:
            values = np.array([self._single() for _ in range(count)], np.float32)
        return values.reshape(shape)

    def _filled(self, count: int) -> Floats:
        """ATen's ``normal_fill``: blocks of 16, and the last 16 drawn again when the count is no multiple."""
        uniform = self._uniform24(count)
        whole = count // _BLOCK * _BLOCK
        values = np.empty(count, np.float32)
        values[:whole] = _box_muller_blocks(uniform[:whole])
        if whole != count:
            values[-_BLOCK:] = _box_muller_blocks(self._uniform24(_BLOCK))
        return values

    def _uniform24(self, count: int) -> Floats:
        words = self._words(count) & 0xFFFFFF
        uniform: Floats = (words * 2.0**-24).astype(np.float32)
        return uniform

    def _words(self, count: int) -> NDArray[np.uint64]:
        self._offset += count
        return self._twister.random_raw(count)

    def _single(self) -> float:
        """ATen's scalar normal distribution: two 53-bit uniforms give two numbers, the second is kept."""
        if self._second is not None:
            value, self._second = self._second, None
            return value
        first, second = self._uniform53(), self._uniform53()
        radius = math.sqrt(-2.0 * math.log1p(-second))
        self._second = radius * math.sin(_TWO_PI * first)
        return radius * math.cos(_TWO_PI * first)

    def _uniform53(self) -> float:
        high, low = (int(word) for word in self._words(2))
        return float(((high << 32) | low) & (2**53 - 1)) * 2.0**-53

    def _philox(self, count: int) -> Floats:
        """ATen's CUDA kernel: thread t of the grid fills t, t + grid, … in rounds of four."""
        blocks = min(-(-count // _CUDA_BLOCK), max(self._threads // _CUDA_BLOCK, 1))
        grid = blocks * _CUDA_BLOCK
        rounds = -(-count // (grid * _CUDA_UNROLL))
        values = np.empty((rounds, _CUDA_UNROLL, grid), np.float32)
        for index in range(rounds):
            values[index] = _normal4(self.seed, grid, self._offset + index)
        self._offset += rounds
        return values.reshape(-1)[:count].copy()


def randn_for(shape: tuple[int, ...], generators: Any) -> Floats:
    """Unit Gaussian noise ``[B, …]`` the way diffusers draws it.

    Args:
        shape: Shape with the batch first.
        generators: One generator for the whole batch, or a list with one for each sample. A torch generator
            draws with torch itself, on its own device.
    """
    if isinstance(generators, (list, tuple)):
        return np.concatenate([draw(one, (1, *shape[1:])) for one in generators])
    return draw(generators, shape)


def random_seed() -> int:
    """A fresh seed for when the user gives none, small enough to type again."""
    return secrets.randbits(32)


def draw(generator: Any, shape: tuple[int, ...]) -> Floats:
    """The next numbers of one generator, ours or torch's, float32."""
    if isinstance(generator, Generator):
        return generator.randn(shape)
    from importlib import import_module

    torch = import_module("torch")  # it is there, the user's own generator comes from it
    drawn = torch.randn(shape, generator=generator, device=generator.device, dtype=torch.float32)
    return np.ascontiguousarray(drawn.cpu().numpy())


def _box_muller_blocks(uniform: Floats) -> Floats:
    """In every 16 numbers the first 8 become radii and the last 8 angles; cosines first, then sines."""
    pairs = uniform.reshape(-1, 2, _BLOCK // 2)
    return np.stack(gaussians(pairs[:, 0], pairs[:, 1]), axis=1).reshape(-1)


def _normal4(seed: int, threads: int, offset: int) -> Floats:
    """cuRAND's four normals ``[4, threads]`` of every thread at one 128-bit counter."""
    counter = np.zeros((4, threads), np.uint64)
    counter[0] = offset & 0xFFFFFFFF
    counter[1] = offset >> 32 & 0xFFFFFFFF
    counter[2] = np.arange(threads)
    words = philox4x32(counter, (seed & 0xFFFFFFFF, seed >> 32 & 0xFFFFFFFF))
    out = np.empty((4, threads), np.float32)
    for pair in (0, 2):
        # cuRAND maps a word to (0, 1] and an angle to (0, 2π] in float32, each centred in its cell.
        u = words[pair].astype(np.float32) * np.float32(2.0**-32) + np.float32(2.0**-33)
        v = words[pair + 1].astype(np.float32) * np.float32(2.0**-32 * _TWO_PI)
        v += np.float32(2.0**-33 * _TWO_PI)
        radius = np.sqrt(np.float32(-2.0) * np.log(u))
        out[pair], out[pair + 1] = radius * np.sin(v), radius * np.cos(v)
    return out


def philox4x32(counter: NDArray[np.uint64], key: tuple[int, int]) -> NDArray[np.uint64]:
    """Ten rounds of Philox 4×32 on counters ``[4, n]`` of 32-bit words held in 64 bits."""
    mask = np.uint64(0xFFFFFFFF)
    shift = np.uint64(32)
    c0, c1, c2, c3 = (word.copy() for word in counter)
    k0, k1 = key
    for _ in range(10):
        left = c0 * np.uint64(0xD2511F53)
        right = c2 * np.uint64(0xCD9E8D57)
        c0, c1, c2, c3 = (
            (right >> shift) ^ c1 ^ np.uint64(k0),
            right & mask,
            (left >> shift) ^ c3 ^ np.uint64(k1),
            left & mask,
        )
        k0 = (k0 + 0x9E3779B9) & 0xFFFFFFFF
        k1 = (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return np.stack([c0, c1, c2, c3])
