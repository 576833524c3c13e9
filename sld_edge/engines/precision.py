"""Which arithmetic a graph gets: what each library is told, and what is said of it.

One place decides, from the precision that the bundle stores a graph in, from what the call allows, and from the
library. A stored precision is never narrowed without permission; fp16 graphs compute in fp16 where the library can.
docs/performance.md has the whole table, and a test holds it against this module.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Literal

from sld_edge.engines.base import ComputePrecision
from sld_edge.engines.half_range import BEYOND_HALF
from sld_edge.manifest import Precision

#: What arithmetic between tensors of 16 or 32 bits may use.
FloatPrecision = Literal["fp32", "bf16", "fp16"]
#: A library, with the execution provider where it has several.
LibraryProvider = Literal[
    "onnxruntime:cpu",
    "onnxruntime:openvino",
    "onnxruntime:cuda",
    "onnxruntime:tensorrt",
    "onnxruntime:tensorrt-rtx",
    "onnxruntime:webgpu",
    "onnxruntime:coreml",
    "onnxruntime:dml",
    "onnxruntime:other",
    "openvino",
    "tensorrt",
    "tensorrt-rtx",
]
#: What a device may be able to do beside fp32, as OpenVINO lists it; TF32 is a card's.
EVERYTHING = frozenset({"FP32", "TF32", "BF16", "FP16", "INT8"})

_NOT_HERE = "this processor has no arithmetic for it"
_ELSEWHERE = "8-bit graphs run on the openvino engine"
_NO_GRAPH = "there is no 8-bit graph of it"
_OWN_TYPES = "this provider keeps the graph's types"
_NO_SWITCH = (
    "it computes fp32 graphs in tf32 and has no option against it; name cuda beside it (tensorrt,cuda), "
    "use a bundle in fp16, or set NVIDIA_TF32_OVERRIDE=0 before Python starts"
)
_HINTS: dict[FloatPrecision, str] = {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}


@dataclass(frozen=True, kw_only=True)
class Arithmetic:
    """What a library is told, and what its arithmetic then is.

    Attributes:
        precision: ``"fp32"``, ``"tf32"``, ``"bf16"``, ``"fp16"``, ``"int8"``, or ``""`` where the library alone knows.
        stated: The same for a description, with the reason where it is not what was allowed.
        options: The library's own options.
        narrows: Whether values stored in fp32 are made fp16, so that they must fit.
        refused: Why this place must not run the graph; empty where it may.
    """

    precision: str
    stated: str
    options: Mapping[str, str | int] = field(default_factory=dict)
    narrows: bool = False
    refused: str = ""


def arithmetic_at(
    place: LibraryProvider,
    stored: Precision,
    asked: ComputePrecision,
    *,
    can: Collection[str] = EVERYTHING,
    half: bool = True,
    group: int | None = None,
    tf32: bool = False,
) -> Arithmetic:
    """The arithmetic of one graph in one place.

    Args:
        place: The library.
        stored: The precision of the graph's weights in the bundle.
        asked: The lowest precision that is allowed.
        can: What the device can do, of :data:`EVERYTHING`.
        half: Whether the weights fit half precision, see :func:`~sld_edge.engines.half_range.fits_half`.
        group: Of the graph in 8 bits, :attr:`~sld_edge.manifest.Int8.group`; None where there is none.
        tf32: Of a TensorRT engine, whether it was built with TF32.
    """
    if place in ("tensorrt", "tensorrt-rtx"):  # decided when it was built
        built = "tf32 (it was built so)" if tf32 and stored == "fp32" else stored
        return Arithmetic(precision=built.partition(" ")[0], stated=built)
    if place == "openvino":
        return _openvino(stored, asked, can, half, group)
    if place == "onnxruntime:openvino":
        used = precision_within(asked, can)
        hint: dict[str, str | int] = {"INFERENCE_PRECISION_HINT": _HINTS[used]}
        stated = _from(stored, stated_precision(used, asked, why_not_int8=_ELSEWHERE))
        return Arithmetic(precision=used, stated=stated, options=hint, narrows=used == "fp16")
    if place == "onnxruntime:cuda":
        return _cuda(stored, asked, can)
    if place in ("onnxruntime:tensorrt", "onnxruntime:tensorrt-rtx"):
        return _tensorrt_provider(stored, asked, can, is_rtx=place.endswith("rtx"))
    if place == "onnxruntime:webgpu":
        return _types_of_the_graph(stored, asked)
    if place in ("onnxruntime:coreml", "onnxruntime:dml", "onnxruntime:other"):
        return Arithmetic(precision="", stated=f"{stored} graph, in what the provider chooses")
    return _cpu(stored, asked)


def precision_within(asked: ComputePrecision, capabilities: Collection[str]) -> FloatPrecision:
    """The lowest precision that is allowed and that a device lists among its capabilities (``"BF16"``), else fp32."""
    wanted: FloatPrecision = float_precision(asked)
    return wanted if wanted == "fp32" or wanted.upper() in capabilities else "fp32"


def float_precision(asked: ComputePrecision) -> FloatPrecision:
    """What a permission means for arithmetic that is not in 8 bits: who allows int8 allows bf16."""
    return "bf16" if asked == "int8" else asked


def stated_precision(
    used: str, asked: ComputePrecision, *, why_not_int8: str = "", why_not: str = _NOT_HERE
) -> str:
    """What a description says of the precision: why it is not the one that was allowed.

    Args:
        used: What the arithmetic uses.
        asked: What was allowed.
        why_not_int8: The reason that int8 was not used where it was allowed.
        why_not: The reason that fp32 is used where less was allowed.
    """
    if asked == "int8" and why_not_int8:
        return f"{used} (int8 was allowed, {why_not_int8})"
    if used == "fp32" and asked != "fp32":
        return f"fp32 ({asked} was allowed, {why_not})"
    return used


def _openvino(
    stored: Precision,
    asked: ComputePrecision,
    can: Collection[str],
    half: bool,
    group: int | None,
) -> Arithmetic:
    used = precision_within(asked, can)
    fits = used != "fp16" or half
    used = used if fits else "fp32"
    options: dict[str, str | int] = {"INFERENCE_PRECISION_HINT": _HINTS[used]}
    if asked == "int8" and group is not None and "INT8" in can:
        options["DYNAMIC_QUANTIZATION_GROUP_SIZE"] = group
        return Arithmetic(precision="int8", stated=f"int8, the rest {used}", options=options)
    if used == "fp32":
        options["EXECUTION_MODE_HINT"] = "ACCURACY"
    if not fits:
        stated = f"fp32 ({asked} was allowed, {BEYOND_HALF})"
    else:
        why = _NO_GRAPH if group is None else _NOT_HERE
        stated = stated_precision(used, asked, why_not_int8=why)
    return Arithmetic(
        precision=used, stated=_from(stored, stated), options=options, narrows=used == "fp16"
    )


def _cuda(stored: Precision, asked: ComputePrecision, can: Collection[str]) -> Arithmetic:
    """TF32 is forbidden to fp32 graphs alone.

    Told ``use_tf32=0``, ONNX Runtime 1.31 keeps the convolutions of fp16 graphs off the tensor cores as well; and what
    such a graph has in fp32 are normalisations and sums, in which TF32 has no part.
    """
    forbidden = stored == "fp32" and asked == "fp32"
    used: str = stored
    if stored == "fp32" and not forbidden and "TF32" in can and _tf32_left_on():
        used = "tf32"
    stated = stated_precision(
        used, asked, why_not_int8=_ELSEWHERE, why_not="this card does not compute fp32 in tf32"
    )
    options = {"use_tf32": "0" if forbidden else "1"}
    return Arithmetic(precision=used, stated=stated, options=options)


def _tensorrt_provider(
    stored: Precision, asked: ComputePrecision, can: Collection[str], *, is_rtx: bool
) -> Arithmetic:
    """ONNX Runtime's TensorRT providers: they leave TF32 on in fp32 graphs, which no option turns off."""
    used: str = "fp16" if stored == "fp16" else float_precision(asked)
    options: dict[str, str | int] = {}
    narrows = False
    if is_rtx:  # it keeps the graph's own types
        used = stored
    elif used != "fp32":
        options, narrows = {f"trt_{used}_enable": "1"}, used == "fp16"
    refused = ""
    if used == "fp32" and "TF32" in can and _tf32_left_on():
        used = "tf32"
        refused = _NO_SWITCH if asked == "fp32" else ""
    stated = stated_precision(used, asked, why_not_int8=_ELSEWHERE, why_not=_OWN_TYPES)
    return Arithmetic(
        precision=used, stated=stated, options=options, narrows=narrows, refused=refused
    )


def _types_of_the_graph(stored: Precision, asked: ComputePrecision) -> Arithmetic:
    """Kernels in the types of the graph; an adapter without fp16 arithmetic fails on an fp16 graph."""
    stated = stated_precision(stored, asked, why_not_int8=_ELSEWHERE, why_not=_OWN_TYPES)
    return Arithmetic(precision=stored, stated=stated)


def _cpu(stored: Precision, asked: ComputePrecision) -> Arithmetic:
    """ONNX Runtime's own kernels: on x86 it lays casts to fp32 around every operator of an fp16 graph."""
    if stored == "fp16" and platform.machine().lower() in ("aarch64", "arm64"):
        return Arithmetic(precision="", stated="fp16 where there is a kernel for it, else fp32")
    why_not = "onnxruntime's CPU kernels have no arithmetic for it"
    stated = stated_precision("fp32", asked, why_not_int8=_ELSEWHERE, why_not=why_not)
    return Arithmetic(precision="fp32", stated=_from(stored, stated))


def _from(stored: Precision, stated: str) -> str:
    """What is said where the weights were stored in fp16 and are computed with in another precision."""
    used, space, reason = stated.partition(" ")
    if stored == "fp32" or used == "fp16":
        return stated
    if not space:
        return f"{used} (from fp16 weights)"
    return f"{used} (from fp16 weights; {reason.removeprefix('(')}"


def _tf32_left_on() -> bool:
    """Whether CUDA's libraries may use TF32 at all in this process."""
    return os.environ.get("NVIDIA_TF32_OVERRIDE") != "0"
