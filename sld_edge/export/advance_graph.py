"""The ``advance`` graph, traced from the equations, and what it is checked with; needs no torch."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sld_edge.runtime.guidance import Settings, advance
from sld_edge.runtime.safety import SafetyConfig
from sld_edge.runtime.steering import COSINES


def advance_graph() -> Any:
    """``onnx_ir`` model traced from :func:`sld_edge.runtime.guidance.advance`; every size is free."""
    import ndonnx
    import onnx_ir

    sample = ("B", "C", "h", "w")
    shapes: dict[str, tuple[int | str, ...]] = {
        "noise_pred": ("R", *sample),
        "state": ("S", *sample),
        "momentum": sample,
        "noise": sample,
        "matrix": ("S", "columns"),
        "settings": (len(Settings._fields),),
        "strength": ("K", "B"),
    }
    arguments = {
        name: ndonnx.argument(shape=shape, dtype=ndonnx.float32) for name, shape in shapes.items()
    }
    names = ("next_state", "next_momentum", "next_strength")
    results = advance(ndonnx, *arguments.values())
    proto = ndonnx.build(arguments, dict(zip(names, results, strict=True)))
    model = onnx_ir.from_proto(proto)
    declared = [("S", *sample), sample, shapes["strength"]]
    for value, shape in zip(model.graph.outputs, declared, strict=True):
        value.shape = onnx_ir.Shape(shape)
    return model


def advance_sample(branches: int, batch: int, rows: int) -> dict[str, NDArray[np.float32]]:
    """Inputs of an ``advance`` graph: predictions of that many branches and samples, that many rows of state."""
    rng = np.random.default_rng(branches)

    def normal(*shape: int) -> NDArray[np.float32]:
        return rng.standard_normal(shape).astype(np.float32)

    sample = (batch, 4, 8, 8)
    config = SafetyConfig.STRONG
    settings = Settings(
        7.5,
        config.sld_guidance_scale,
        config.sld_threshold,
        config.sld_momentum_scale,
        config.sld_mom_beta,
        1.0,
        float(branches > 3),
        *COSINES,
    )
    return {
        "noise_pred": normal(branches, *sample) * np.float32(0.1),
        "state": normal(rows, *sample),
        "momentum": normal(*sample) * np.float32(0.1),
        "noise": normal(*sample),
        "matrix": normal(rows, rows + 2),
        "settings": np.array(settings, np.float32),
        "strength": rng.random((branches - 2, batch)).astype(np.float32),
    }
