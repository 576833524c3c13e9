"""What users of torch hand over: half precisions, gradients, tensors as seeds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from sld_edge import Generator
from sld_edge.errors import InvalidInput
from sld_edge.runtime.request import _generators, _latents

SHAPE = (2, 4, 8, 8)


@pytest.mark.parametrize(
    "dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str
)
@pytest.mark.parametrize("gradient", [False, True])
def test_latents_of_any_precision_are_taken(dtype: torch.dtype, gradient: bool) -> None:
    tensor = torch.randn(SHAPE, generator=torch.Generator().manual_seed(1)).to(dtype)
    got = _latents(tensor.requires_grad_(gradient), SHAPE)
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, tensor.detach().float().numpy())


def test_latents_that_are_no_numbers_of_that_kind() -> None:
    with pytest.raises(InvalidInput, match="not floating point"):
        _latents(torch.zeros(SHAPE, dtype=torch.int32), SHAPE)
    with pytest.raises(InvalidInput, match="wrong shape"):
        _latents(torch.zeros(1), SHAPE)
    with pytest.raises(InvalidInput, match="not finite"):
        _latents(torch.full(SHAPE, torch.nan, dtype=torch.bfloat16), SHAPE)


@pytest.mark.parametrize("seed", [torch.tensor(5), np.array(5), np.int64(5), 5], ids=type)
def test_one_seed_in_any_wrapping(seed: Any) -> None:
    assert _generators(None, seed, 2).seed == 5
    assert _generators(seed, None, 2).seed == 5


@pytest.mark.parametrize(
    "seeds", [torch.tensor([5, 6]), np.array([5, 6]), [np.int64(5), torch.tensor(6)]]
)
def test_a_seed_for_each_in_any_wrapping(seeds: Any) -> None:
    assert [one.seed for one in _generators(None, seeds, 2)] == [5, 6]


@pytest.mark.parametrize(
    "seed", [torch.tensor(5.0), torch.tensor(True), np.array([1.0, 2.0]), torch.tensor([[1, 2]])]
)
def test_what_is_no_seed_stays_one_line(seed: Any) -> None:
    with pytest.raises(InvalidInput):
        _generators(None, seed, 2 if seed.ndim == 1 else 1)


def test_generators_are_taken_as_they_are() -> None:
    for generator in (Generator(1), torch.Generator()):
        assert _generators(generator, None, 1) is generator
