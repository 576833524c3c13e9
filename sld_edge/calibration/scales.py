"""From ranges to scales and zero points, and from arrays to 8-bit integers: arithmetic only.

A real number x is stored as q = clip(round(x / scale) + zero) and read back as (q − zero) · scale, as ONNX's
QuantizeLinear and DequantizeLinear define it. Zero is always read back as exactly zero: padding and the many
zeros after an activation must not become a small constant.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: A range leaning to one side by more than this (shorter arm over longer arm) is stored asymmetrically.
_LEANING = 0.5
#: The smallest scale; an activation that is always zero still needs one.
_TINY = 1e-8
_LARGEST_INT8 = 127


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How one tensor is stored: int8 around zero, or uint8 with a zero point."""

    scale: float
    zero: int
    signed: bool

    @property
    def dtype(self) -> type[np.int8] | type[np.uint8]:
        """NumPy's type of the stored integers."""
        return np.int8 if self.signed else np.uint8

    def quantised(self, array: NDArray[np.float32]) -> NDArray[Any]:
        """The stored integers of an array of any shape."""
        info = np.iinfo(self.dtype)
        steps = np.round(np.asarray(array, np.float64) / self.scale) + self.zero
        return np.clip(steps, info.min, info.max).astype(self.dtype)

    def restored(self, stored: NDArray[Any]) -> NDArray[np.float32]:
        """What is read back."""
        return ((stored.astype(np.float64) - self.zero) * self.scale).astype(np.float32)


def scale_from_range(low: float, high: float) -> Scale:
    """The scale that stores every number from ``low`` to ``high`` to within half a step.

    int8 around zero where both arms are about equally long; uint8 with a zero point where one is much shorter,
    as after SiLU, whose lowest value is −0.28.
    """
    low, high = min(low, 0.0), max(high, 0.0)
    longer, shorter = max(-low, high), min(-low, high)
    if shorter > _LEANING * longer:
        return Scale(scale=_as_stored(longer / _LARGEST_INT8), zero=0, signed=True)
    scale = _as_stored((high - low) / 255)
    return Scale(scale=scale, zero=round(-low / scale), signed=False)


def weights_from_array(
    array: NDArray[np.float32], *, axis: int
) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """int8 weights and their float32 scales, one for each index of ``axis`` (the output channel)."""
    others = tuple(index for index in range(array.ndim) if index != axis)
    scales = np.maximum(np.abs(array).max(axis=others) / _LARGEST_INT8, _TINY).astype(np.float32)
    shape = [1] * array.ndim
    shape[axis] = -1
    steps = np.round(array / scales.reshape(shape))
    return np.clip(steps, -_LARGEST_INT8, _LARGEST_INT8).astype(np.int8), scales


def _as_stored(scale: float) -> float:
    """The scale as float32 keeps it, never rounded down: the ends of the range must stay inside."""
    stored = np.float32(max(scale, _TINY))
    return float(stored if float(stored) >= scale else np.nextafter(stored, np.float32(np.inf)))
