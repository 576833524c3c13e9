"""Box–Muller in the very float32 operations of torch's CPU kernel, so that numbers are equal bit by bit.

torch's x86 builds (AVX2 and better) take the logarithm, sine and cosine of the Cephes mathematical library
(S. Moshier): a range reduction and a polynomial. Which products and sums are fused decides the last bit; the order
below is that of torch 2.13's wheels. Only IEEE 754 operations are used, so every processor gives the same numbers,
whatever its own ``log`` and ``cos`` are. torch on other processors, and with ``ATEN_CPU_CAPABILITY=default``, uses the
C library instead and differs from its own x86 builds in the last bits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

_TWO_PI: Final = np.float32(2.0 * math.pi)
_HALF: Final = np.float32(0.5)
_ONE: Final = np.float32(1.0)
#: Cephes' logf: polynomial from the highest power, the square root of 1/2, and ln 2 in two parts.
_LOG: Final = (
    7.0376836292e-2, -1.1514610310e-1, 1.1676998740e-1, -1.2420140846e-1, 1.4249322787e-1,
    -1.6668057665e-1, 2.0000714765e-1, -2.4999993993e-1, 3.3333331174e-1,
)  # fmt: skip
_ROOT_HALF: Final = np.float32(0.707106781186547524)
_LN2_LOW, _LN2_HIGH = -2.12194440e-4, 0.693359375
#: Cephes' sinf and cosf: 4/π, π/4 in three parts, and the polynomials in x².
_FOUR_OVER_PI: Final = np.float32(1.27323954473516)
_QUARTER_PI: Final = (-0.78515625, -2.4187564849853515625e-4, -3.77489497744594108e-8)
_SIN: Final = (-1.9515295891e-4, 8.3321608736e-3, -1.6666654611e-1)
_COS: Final = (2.443315711809948e-5, -1.388731625493765e-3, 4.166664568298827e-2)
#: Bits of a double that a float32 has no room for, and the pattern that is half a unit of the last one kept.
_LOST: Final = np.int64(2**29 - 1)
_MIDPOINT: Final = np.int64(2**28)


def gaussians(first: Floats, second: Floats) -> tuple[Floats, Floats]:
    """Two unit Gaussian numbers for each pair of uniform ones.

    Args:
        first: Uniform numbers in [0, 1), which become radii.
        second: Uniform numbers in [0, 1), which become angles.

    Returns:
        Radius times cosine, and radius times sine.
    """
    radius = np.sqrt(np.float32(-2.0) * _log(_ONE - first))
    sine, cosine = _sine_cosine(_TWO_PI * second)
    return radius * cosine, radius * sine


def _log(values: Floats) -> Floats:
    """Natural logarithm of numbers in (0, 1]."""
    mantissa, exponent = np.frexp(values)
    small = mantissa < _ROOT_HALF
    power = (exponent - small).astype(np.float32)
    x = (mantissa - _ONE) + np.where(small, mantissa, np.float32(0.0))
    square = x * x
    y = _polynomial(_LOG, x) * x
    y = _fused(y, square, power * np.float32(_LN2_LOW))
    y = _fused(square, -_HALF, y)
    return _fused(power, np.float32(_LN2_HIGH), x + y)


def _sine_cosine(x: Floats) -> tuple[Floats, Floats]:
    """Sine and cosine of angles in [0, 2π]."""
    octant = ((x * _FOUR_OVER_PI).astype(np.int32) + 1) & ~np.int32(1)
    part = octant.astype(np.float32)
    for quarter in _QUARTER_PI:
        x = _fused(part, np.float32(quarter), x)
    square = x * x
    cosine = _polynomial(_COS, square) * square
    cosine = _fused(cosine, square, -(square * _HALF)) + _ONE
    sine = _polynomial(_SIN, square) * square
    sine = _fused(sine, x, x)
    swapped = (octant & 2) != 0
    sines, cosines = np.where(swapped, cosine, sine), np.where(swapped, sine, cosine)
    return (
        np.where((octant & 4) != 0, -sines, sines),
        np.where(((octant + 2) & 4) != 0, -cosines, cosines),
    )


def _polynomial(coefficients: Sequence[float], x: Floats) -> Floats:
    """Horner's scheme, each step fused."""
    y = np.full_like(x, coefficients[0])
    for coefficient in coefficients[1:]:
        y = _fused(y, x, np.float32(coefficient))
    return y


def _fused(a: Floats, b: Floats | np.float32, c: Floats | np.float32) -> Floats:
    """``a·b + c`` rounded once.

    The product of two float32 is exact in double. The sum is rounded to double first, which matters only where that
    lands halfway between two float32: there the part that was lost says which way to go.
    """
    product = a.astype(np.float64) * np.asarray(b, np.float64)
    other = np.broadcast_to(np.asarray(c, np.float64), product.shape)
    total = product + other
    halfway = (total.view(np.int64) & _LOST) == _MIDPOINT
    if halfway.any():
        p, o, t = product[halfway], other[halfway], total[halfway]
        back = t - p
        lost = (p - (t - back)) + (o - back)
        total[halfway] = np.where(lost == 0.0, t, np.nextafter(t, np.copysign(np.inf, lost)))
    return total.astype(np.float32)
