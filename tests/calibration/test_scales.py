"""Scales and zero points: whatever the range, half a step is the largest error and zero stays zero."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from sld_edge.calibration.scales import scale_from_range, weights_from_array

ENDS = st.floats(-1e4, 1e4, width=32)


@given(ENDS, ENDS)
def test_within_the_range_the_error_is_at_most_half_a_step(one: float, other: float) -> None:
    low, high = min(one, other, 0.0), max(one, other, 0.0)
    scale = scale_from_range(low, high)
    values = np.linspace(low, high, 301, dtype=np.float32)
    error = np.abs(scale.restored(scale.quantised(values)).astype(np.float64) - values)
    assert error.max() <= scale.scale * (0.5 + 1e-4)


@given(ENDS, ENDS)
def test_zero_is_read_back_as_zero_and_fits_the_type(one: float, other: float) -> None:
    scale = scale_from_range(min(one, other), max(one, other))
    zeros = np.zeros(3, np.float32)
    assert (scale.restored(scale.quantised(zeros)) == 0).all()
    info = np.iinfo(scale.dtype)
    assert info.min <= scale.zero <= info.max


@given(ENDS, ENDS)
def test_what_lies_outside_is_clipped_to_the_ends(one: float, other: float) -> None:
    scale = scale_from_range(min(one, other), max(one, other))
    far = np.array([-1e9, 1e9], np.float32)
    info = np.iinfo(scale.dtype)
    assert scale.quantised(far).tolist() == [info.min, info.max]


def test_a_range_that_leans_to_one_side_gets_a_zero_point_and_finer_steps() -> None:
    silu, even = scale_from_range(-0.28, 8.0), scale_from_range(-7.0, 8.0)
    assert not silu.signed
    assert silu.zero == 9
    assert even.signed
    assert even.zero == 0
    assert silu.scale < even.scale * 0.6


def test_weights_have_a_scale_for_each_output_channel() -> None:
    rng = np.random.default_rng(0)
    weights = rng.standard_normal((5, 4, 3, 3)).astype(np.float32)
    weights[2] *= 100
    weights[3] = 0
    stored, scales = weights_from_array(weights, axis=0)
    assert stored.dtype == np.int8
    assert stored.min() >= -127
    assert scales.shape == (5,)
    error = np.abs(stored * scales[:, None, None, None] - weights).max(axis=(1, 2, 3))
    assert (error <= scales * 0.5001).all()
    assert not stored[3].any()
