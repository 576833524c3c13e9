"""When two results of the same graph count as equal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sld_edge.bench.compare.picture import is_flat, psnr
from sld_edge.manifest import RAW_MEAN, Precision

Arrays = Mapping[str, NDArray[Any]]
#: Largest error in an fp32 graph, relative to the largest value.
TIGHT = 1e-3
#: Fewest dB of an fp16 graph's outputs, the largest value being the peak.
HALF_DB = 40.0
#: Fewest dB of whole pictures: errors of all steps add up. That of fp16 holds only where the network's own error is not
#: known, see :mod:`~sld_edge.bench.gpu_check.steps`.
PICTURE_DB: dict[Precision, float] = {"fp32": 45.0, "fp16": 30.0}


class Comparison(NamedTuple):
    """Whether two results are equal enough, and by how much."""

    equal: bool
    line: str


def compare_outputs(found: Arrays, wanted: Arrays, precision: Precision) -> Comparison:
    """All outputs of one graph; the line is of the worst."""
    if set(found) != set(wanted):
        return Comparison(False, f"outputs are {sorted(found)}, should be {sorted(wanted)}")
    results = [_compare(name, found[name], wanted[name], precision) for name in wanted]
    return next((one for one in results if not one.equal), results[-1])


def nothing_to_see(pictures: Any) -> bool:
    """Whether a picture, float ``[B, H, W, 3]`` in 0…1, is so flat that matching it would prove nothing."""
    return any(is_flat(_bytes(picture)) for picture in pictures)


def compare_pictures(found: Any, wanted: Any, precision: Precision) -> Comparison:
    """Pictures as float arrays ``[B, H, W, 3]`` in 0…1: the worst one's PSNR."""
    if found.shape != wanted.shape:
        return Comparison(False, f"pictures are {found.shape}, should be {wanted.shape}")
    worst = worst_psnr(found, wanted)
    least = PICTURE_DB[precision]
    return Comparison(worst >= least, f"{worst:.1f} dB of {least:.0f} dB")


def worst_psnr(found: Any, wanted: Any) -> float:
    """The least PSNR in dB of float pictures ``[B, H, W, 3]`` in 0…1."""
    pairs = zip(found, wanted, strict=True)
    return min(psnr(_bytes(one), _bytes(other)) for one, other in pairs)


def _bytes(picture: NDArray[np.float32]) -> NDArray[np.uint8]:
    return np.round(picture * 255.0).astype(np.uint8)


def _compare(
    name: str, found: NDArray[Any], wanted: NDArray[Any], precision: Precision
) -> Comparison:
    if found.shape != wanted.shape or found.dtype != wanted.dtype:
        return Comparison(
            False,
            f"{name} is {found.dtype}{list(found.shape)}, should be"
            f" {wanted.dtype}{list(wanted.shape)}",
        )
    if found.dtype == np.bool_:
        different = int((found != wanted).sum())
        return Comparison(not different, f"{name}: {different} verdicts differ")
    one, other = found.astype(np.float64), wanted.astype(np.float64)
    if not np.isfinite(one).all():
        return Comparison(False, f"{name} is not finite")
    if name == RAW_MEAN:  # it may be near 0, and is there to be finite
        return Comparison(True, f"{name}: finite")
    peak = max(float(np.abs(other).max()), 1e-12)
    error = np.abs(one - other)
    if precision == "fp32":
        # A pixel may be rounded the other way; one level is not an error of the arithmetic.
        limit = 1.0 / 255.0 if found.dtype == np.uint8 else TIGHT
        worst = float(error.max()) / peak
        return Comparison(worst <= limit, f"{name}: relative error {worst:.1e} of {limit:.0e}")
    noise = float(np.sqrt((error**2).mean()))
    decibels = 200.0 if noise == 0 else 20.0 * float(np.log10(peak / noise))
    return Comparison(
        decibels >= HALF_DB, f"{name}: {min(decibels, 200.0):.1f} dB of {HALF_DB:.0f} dB"
    )
