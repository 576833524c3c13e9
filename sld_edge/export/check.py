"""Every written graph is run and compared with torch; one that misses its tolerance fails the export by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sld_edge.errors import ExportError
from sld_edge.manifest import Check, Precision

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, kw_only=True)
class Tolerance:
    """How far a graph may be from the reference, for one kind of output.

    ``metric`` is ``"relative_max"`` (largest error over the reference's largest value), ``"relative_rms"``
    (root mean square of the error over that of the reference), ``"levels"`` (mean error in 8-bit levels) or
    ``"max_abs"``.
    """

    metric: str
    limit: float


#: fp32 graphs differ from torch by the order of additions only; fp16 ones by its eleven bits over many layers.
TOLERANCES: dict[Precision, dict[str, Tolerance]] = {
    "fp32": {
        "text": Tolerance(metric="relative_max", limit=1e-4),
        "unet": Tolerance(metric="relative_max", limit=1e-4),
        "decode": Tolerance(metric="levels", limit=0.01),
        "safety": Tolerance(metric="max_abs", limit=0.0015),
        "advance": Tolerance(metric="relative_max", limit=1e-5),
    },
    "fp16": {
        "text": Tolerance(metric="relative_rms", limit=0.02),
        "unet": Tolerance(metric="relative_rms", limit=0.02),
        "decode": Tolerance(metric="levels", limit=1.0),
        "safety": Tolerance(metric="max_abs", limit=0.005),
        "advance": Tolerance(metric="relative_max", limit=1e-5),
    },
}


def check_outputs(
    kind: str,
    precision: Precision,
    got: Arrays,
    want: Arrays,
    *,
    reference: str,
    ordinary: bool = True,
) -> Check:
    """Compare a graph's outputs with the reference's.

    Args:
        kind: The graph's.
        precision: The bundle's.
        got: The graph's outputs.
        want: The reference's.
        reference: What gave ``want``.
        ordinary: Whether the inputs were such that no output may be constant.

    Raises:
        ExportError: an output is not finite, is constant where it must not be, or misses its tolerance.
    """
    tolerance = TOLERANCES[precision][kind]
    worst = 0.0
    for name, expected in want.items():
        actual = np.asarray(got[name])
        if actual.shape != expected.shape:
            raise ExportError(
                f"the {kind} graph gives {name} of shape {actual.shape}, not {expected.shape}"
            )
        if actual.dtype == np.bool_:
            continue  # verdicts follow from the scores, which are compared
        _refuse_degenerate(
            kind, name, actual, precision, may_be_constant=kind == "safety" or not ordinary
        )
        if name == "raw_mean":
            continue  # it says whether values are finite, and is
        if not np.isfinite(expected.astype(np.float64)).all():
            # A comparison with NaN finds no error, however wrong the graph is.
            raise ExportError(
                f"{reference} gives values that are not finite in {name} of {kind}",
                hint="the checkpoint itself is broken",
            )
        worst = max(worst, _distance(tolerance.metric, actual, expected))
    if worst > tolerance.limit:
        raise ExportError(
            f"the {kind} graph misses its tolerance: {tolerance.metric} error {worst:.2e}, limit {tolerance.limit:.0e}",
            hint="export with --precision fp32"
            if precision == "fp16"
            else "report this checkpoint",
        )
    return Check(
        reference=reference,
        max_abs_error=worst,
        tolerance=tolerance.limit,
        metric=tolerance.metric,
    )


def run_graph(file: Path, inputs: Arrays) -> dict[str, NDArray[Any]]:
    """Run a written graph once on ONNX Runtime's CPU provider."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(
            str(file), options, providers=["CPUExecutionProvider"]
        )
        names = [output.name for output in session.get_outputs()]
        return dict(zip(names, session.run(names, dict(inputs)), strict=True))
    except Exception as error:  # the library raises many kinds
        raise ExportError(f"onnxruntime cannot run {file.name} ({str(error)[:300]})") from error


def _refuse_degenerate(
    kind: str,
    name: str,
    actual: NDArray[Any],
    precision: Precision,
    *,
    may_be_constant: bool,
) -> None:
    hint = (
        "export with --precision fp32" if precision == "fp16" else "the checkpoint itself is broken"
    )
    if not np.isfinite(actual.astype(np.float64)).all():
        raise ExportError(f"the {kind} graph gives values that are not finite in {name}", hint=hint)
    if actual.size > 1 and not may_be_constant and np.ptp(actual.astype(np.float64)) == 0.0:
        what = "a constant image" if kind == "decode" else f"constant {name}"
        raise ExportError(f"the {kind} graph gives {what}", hint=hint)


def _distance(metric: str, actual: NDArray[Any], expected: NDArray[Any]) -> float:
    a, b = actual.astype(np.float64), expected.astype(np.float64)
    error = np.abs(a - b)
    if metric == "relative_max":
        return float(error.max() / max(float(np.abs(b).max()), 1e-12))
    if metric == "relative_rms":
        return float(np.sqrt((error**2).mean() / max(float((b**2).mean()), 1e-24)))
    return float(error.mean() if metric == "levels" else error.max())
