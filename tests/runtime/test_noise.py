"""The same numbers as torch's generators."""

from __future__ import annotations

import hashlib
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sld_edge import Generator
from sld_edge.errors import InvalidInput
from sld_edge.runtime.box_muller import _fused
from sld_edge.runtime.noise import randn_for

DIGEST = "24efac55b39e95b2d74d8fb5b3a8e8a8e808bd04129f260c4cdbb225bb952a4d"
#: torch takes other logarithms and cosines on other processors, see ``sld_edge.runtime.box_muller``.
same_bits = pytest.mark.skipif(
    torch.backends.cpu.get_cpu_capability() not in ("AVX2", "AVX512"),
    reason="torch's own numbers differ here in the last bits from those of its x86 builds",
)


@same_bits
@given(
    seed=st.integers(-(2**63), 2**64 - 1),
    counts=st.lists(st.one_of(st.integers(1, 40), st.integers(1, 70_000)), min_size=1, max_size=4),
)
@settings(max_examples=150, deadline=None)
def test_every_bit_is_torchs(seed: int, counts: list[int]) -> None:
    generator = Generator(seed)
    for count, want in zip(counts, theirs(seed, *((c,) for c in counts)), strict=True):
        np.testing.assert_array_equal(generator.randn((count,)), want)


@same_bits
def test_a_million_numbers_are_torchs() -> None:
    (want,) = theirs(2026, (1 << 20,))
    np.testing.assert_array_equal(Generator(2026).randn((1 << 20,)), want)


def test_the_same_bits_on_every_processor() -> None:
    """Nothing of the C library or of NumPy's own logarithm is in them, so their digest is a constant."""
    values = Generator(0).randn((4, 64, 64))
    assert hashlib.sha256(values.astype("<f4").tobytes()).hexdigest() == DIGEST


@given(
    st.lists(st.tuples(*[st.floats(-1e6, 1e6, width=32)] * 3), min_size=1),
)
def test_a_fused_product_and_sum_is_rounded_once(triples: list[tuple[float, float, float]]) -> None:
    a, b, c = (np.array(column, np.float32) for column in zip(*triples, strict=True))
    exact = [Fraction(x) * Fraction(y) + Fraction(z) for x, y, z in triples]
    got = _fused(a, b, c)
    for value, want in zip(got, exact, strict=True):
        near = [Fraction(float(np.nextafter(value, np.float32(way)))) for way in (-np.inf, np.inf)]
        assert all(abs(Fraction(float(value)) - want) <= abs(other - want) for other in near)


def theirs(seed: int, *shapes: tuple[int, ...]) -> list[np.ndarray]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator).numpy() for shape in shapes]


@given(
    seed=st.integers(-(2**63), 2**64 - 1),
    counts=st.lists(st.integers(1, 300), min_size=1, max_size=5),
)
@settings(max_examples=150, deadline=None)
def test_any_sequence_of_draws_equals_torch(seed: int, counts: list[int]) -> None:
    generator = Generator(seed)
    for count, want in zip(counts, theirs(seed, *((c,) for c in counts)), strict=True):
        np.testing.assert_allclose(generator.randn((count,)), want, atol=1e-6, rtol=0)


@pytest.mark.parametrize("shape", [(1, 4, 64, 64), (3, 4, 96, 64), (2, 4, 8, 8), (1, 4, 1, 1)])
def test_latents_equal_torch(shape: tuple[int, ...]) -> None:
    (want,) = theirs(1234567, shape)
    np.testing.assert_allclose(Generator(1234567).randn(shape), want, atol=1e-6, rtol=0)


def test_a_list_of_generators_draws_each_image_on_its_own() -> None:
    got = randn_for((2, 4, 8, 8), [Generator(5), Generator(6)])
    want = np.concatenate([theirs(seed, (1, 4, 8, 8))[0] for seed in (5, 6)])
    np.testing.assert_allclose(got, want, atol=1e-6, rtol=0)


def test_a_torch_generator_is_taken_as_it_is() -> None:
    (want,) = theirs(9, (1, 4, 8, 8))
    got = randn_for((1, 4, 8, 8), torch.Generator().manual_seed(9))
    np.testing.assert_array_equal(got, want)


def test_the_cuda_stream_gives_the_widely_known_numbers() -> None:
    """What ``torch.randn(4, device="cuda")`` prints after ``manual_seed(0)``."""
    got = Generator(0, "cuda").randn((4,))
    np.testing.assert_allclose(got, [-0.9247, -0.4253, -2.6438, 0.1452], atol=5e-5)


def test_the_cuda_stream_is_gaussian_and_moves_on() -> None:
    generator = Generator(3, "cuda")
    first, second = generator.randn((100_000,)), generator.randn((100_000,))
    for draw in (first, second):
        assert abs(draw.mean()) < 0.02
        assert abs(draw.std() - 1) < 0.02
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.02


@pytest.mark.parametrize("shape", [5, "ab", (-1, 2), (2.5,), None, (True,)])
def test_what_is_no_shape_is_refused(shape: object) -> None:
    with pytest.raises(InvalidInput, match="shape"):
        Generator(1).randn(shape)  # type: ignore[arg-type]  # that is the point


def test_any_kind_of_shape_is_taken() -> None:
    want = Generator(1).randn((2, 9))
    shapes: tuple[Any, ...] = ([2, 9], torch.Size((2, 9)), np.zeros((2, 9)).shape, (np.int64(2), 9))
    for shape in shapes:
        np.testing.assert_array_equal(Generator(1).randn(shape), want)


@pytest.mark.parametrize("seed", [2**64, -(2**63) - 1, 1.5, "7", True])
def test_what_is_no_seed_is_refused(seed: object) -> None:
    with pytest.raises(InvalidInput, match="seed"):
        Generator(seed)  # type: ignore[arg-type]
