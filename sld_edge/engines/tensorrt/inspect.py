"""What a built engine turned out to be: its layers, and the precision of every convolution and matrix product."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from sld_edge.engines.tensorrt.library import Library
from sld_edge.engines.tensorrt.log import BuildLog, logger_from_log
from sld_edge.errors import EngineError

#: The network's layers that do the work → what they are called here.
_PRODUCTS = {
    "CONVOLUTION": "convolution",
    "DECONVOLUTION": "convolution",
    "MATRIX_MULTIPLY": "matmul",
    "EINSUM": "matmul",
    "ATTENTION_INPUT": "matmul",
}
#: The engine's layers that do it. Others (``kgen``: generated element-wise kernels) may hold small products too.
_BUILT_PRODUCTS = re.compile(
    r"conv|correlation|gemm|matmul|matrixmultiply|mha|fusion|attention|fc$", re.I
)
#: Spellings of element types in the libraries' enumerations, reports and formats.
_TYPES = (
    (re.compile(r"bf16|bfloat16", re.I), "bf16"),
    (re.compile(r"half|fp16|float16", re.I), "fp16"),
    (re.compile(r"fp8|e4m3", re.I), "fp8"),
    (re.compile(r"fp4|e2m1", re.I), "fp4"),
    (re.compile(r"float|fp32", re.I), "fp32"),
    (re.compile(r"uint8", re.I), "uint8"),
    (re.compile(r"int8", re.I), "int8"),
    (re.compile(r"int4", re.I), "int4"),
    (re.compile(r"int64", re.I), "int64"),
    (re.compile(r"int32", re.I), "int32"),
    (re.compile(r"bool", re.I), "bool"),
)
_ONNX_NAME = re.compile(r"\[ONNX Layer: ([^\]]*)\]")
_HEAD = re.compile(r"Name: (?P<name>.*?), LayerType: (?P<kind>\w+), (?P<rest>.*)", re.S)
_SECTION = re.compile(r"(?:^|, )(Inputs|Constants|Outputs|TacticName): ")
_DATATYPE = re.compile(r"Datatype: ([^,}\]]+)")


@dataclass(frozen=True, kw_only=True)
class Product:
    """A convolution or matrix product as the ONNX file has it."""

    kind: str
    precision: str


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One layer of a built engine."""

    name: str
    kind: str
    #: Element types of its inputs (of its constants where it has none), and of its outputs.
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    #: Names of the ONNX nodes it was made from.
    nodes: tuple[str, ...]


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """An engine in numbers.

    Args:
        engine_bytes: Size of the serialised engine.
        weights_bytes: Of its weights, on the device.
        activation_bytes: Scratch memory of its largest profile, on the device.
        convolutions: Precision → how many convolutions the ONNX file has in it.
        matmuls: Likewise for matrix products.
        layers: Precision of the outputs → how many layers the built engine has.
        verified: Convolutions and matrix products whose precision was read back from the built engine's own
            kernels for them; the rest was fused into generated kernels, which keep the file's types.
    """

    engine_bytes: int
    weights_bytes: int
    activation_bytes: int
    convolutions: dict[str, int]
    matmuls: dict[str, int]
    layers: dict[str, int]
    verified: int


def declared_products(network: Any) -> dict[str, Product]:
    """Name → kind and precision of every convolution and matrix product of a strongly typed network."""
    products = {}
    for index in range(network.num_layers):
        network_layer = network.get_layer(index)
        kind = _PRODUCTS.get(network_layer.type.name)
        if kind is None:
            continue
        network_tensor = network_layer.get_input(0)
        precision = precision_of(network_tensor.dtype.name)
        products[network_layer.name] = Product(kind=kind, precision=precision)
    return products


def precision_of(text: str) -> str:
    """``"fp16"`` from any spelling of an element type that the libraries use (``"Half"``, ``"…FP16 format"``)."""
    for pattern, name in _TYPES:
        if pattern.search(text):
            return name
    return text.strip().lower()


def layers_from_log(lines: Sequence[str]) -> tuple[Layer, ...]:
    """Layers from the report that a verbose build prints; this works without a device."""
    layers = []
    for line in lines:
        head = _HEAD.match(line)
        if head is None:
            continue
        parts = _SECTION.split(head["rest"])
        sections = {
            name: _DATATYPE.findall(text)
            for name, text in zip(parts[1::2], parts[2::2], strict=True)
        }
        layers.append(
            Layer(
                name=head["name"],
                kind=head["kind"],
                inputs=_types(sections.get("Inputs") or sections.get("Constants", [])),
                outputs=_types(sections.get("Outputs", [])),
                nodes=tuple(_ONNX_NAME.findall(head["rest"])),
            )
        )
    return tuple(layers)


def layers_from_engine(library: Library, serialised: Any) -> tuple[Layer, ...]:
    """Layers as the engine inspector tells them, from an engine loaded on the device it was built for.

    Raises:
        EngineError: the engine cannot be loaded here.
    """
    trt = library.trt
    log = BuildLog()
    runtime = trt.Runtime(logger_from_log(trt, log))
    engine = runtime.deserialize_cuda_engine(serialised)
    if engine is None:
        raise EngineError(f"{library.name} cannot load the engine to inspect it ({log.reason})")
    inspector = engine.create_engine_inspector()
    text = inspector.get_engine_information(trt.LayerInformationFormat.JSON)
    return layers_from_json(text)


def layers_from_json(text: str) -> tuple[Layer, ...]:
    """Layers from the inspector's JSON."""
    layers = []
    for layer in json.loads(text).get("Layers", []):
        if not isinstance(layer, dict):
            continue  # an engine built with names only
        tensors = {
            section: [
                str(tensor.get("Datatype") or tensor.get("Format/Datatype") or "")
                for tensor in layer.get(section, [])
                if isinstance(tensor, dict)
            ]
            for section in ("Inputs", "Constants", "Outputs")
        }
        layers.append(
            Layer(
                name=str(layer.get("Name", "")),
                kind=str(layer.get("LayerType", "")),
                inputs=_types(tensors["Inputs"] or tensors["Constants"]),
                outputs=_types(tensors["Outputs"]),
                nodes=tuple(_ONNX_NAME.findall(str(layer.get("Metadata", "")))),
            )
        )
    return tuple(layers)


def _types(texts: Sequence[str]) -> tuple[str, ...]:
    return tuple(precision_of(text) for text in texts if text)


def check_precision(declared: Mapping[str, Product], layers: Sequence[Layer]) -> int:
    """Check that every kernel for a product takes the precision which the ONNX file says.

    Returns:
        How many products have a kernel of their own, and so were checked.

    Raises:
        EngineError: naming the first that differs.
    """
    checked = set()
    for layer in layers:
        if not _BUILT_PRODUCTS.search(layer.kind) or not layer.inputs:
            continue
        for node in layer.nodes:
            product = declared.get(node)
            if product is None:
                continue
            if product.precision not in layer.inputs:
                raise EngineError(
                    f"the engine computes {node} in {'/'.join(sorted(set(layer.inputs)))},"
                    f" the graph has it in {product.precision}"
                )
            checked.add(node)
    return len(checked)


def summary_from_layers(
    declared: Mapping[str, Product], layers: Sequence[Layer], log: BuildLog, engine_bytes: int
) -> Summary:
    """Count what was declared and what was built."""

    def counted(kind: str) -> dict[str, int]:
        return dict(Counter(p.precision for p in declared.values() if p.kind == kind))

    return Summary(
        engine_bytes=engine_bytes,
        weights_bytes=log.weights_bytes,
        activation_bytes=log.activation_bytes,
        convolutions=counted("convolution"),
        matmuls=counted("matmul"),
        layers=dict(Counter(layer.outputs[0] for layer in layers if layer.outputs)),
        verified=check_precision(declared, layers),
    )
