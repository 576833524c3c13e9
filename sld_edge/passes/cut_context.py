"""What the text alone determines becomes a graph of its own, run once for each prompt.

Before: a graph with free rows whose cross-attention has its scale on the keys (:class:`FreeRows`,
:class:`ScaleOneSide`). After: the context graph makes the keys ``[N, heads, dim, T]`` and values ``[N, heads, T,
dim]`` of every cross-attention, named ``k_00, v_00, k_01, …`` in running order, and the denoiser takes them as ``[R,
B, heads, …]``. The cut lies as late as it can. Text that reaches the denoiser in another way than as keys and values
is refused.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import InPlacePass, PassResult
from onnx_ir.passes.common import RemoveUnusedNodesPass

from sld_edge.errors import UnsupportedCheckpoint
from sld_edge.passes.attention_scale import sites_of
from sld_edge.passes.edit import add_node, constant
from sld_edge.passes.rows import CONTEXT, Roles, classes_of, declare_rows

#: Where torch's newer exporter keeps the modules that a node came from.
_SCOPES = "pkg.torch.onnx.name_scopes"
_PLACE = re.compile(r"((?:down_blocks|up_blocks|mid_block)[\w./]*?attn\d*)(?=[/.'\"]|$)")


class Layer(NamedTuple):
    """One cross-attention layer, as the manifest lists them."""

    name: str
    heads: int
    head_dim: int


class CutContext(InPlacePass):  # type: ignore[misc]  # onnx-ir is untyped here
    """See the module. The model becomes the denoiser; ``context`` and ``layers`` are there after the call.

    Args:
        roles: The class of each input by its name.
        rows: How many rows the inputs were settled to.

    Raises:
        UnsupportedCheckpoint: from the call, where there is no cross-attention, or the text goes another way.
    """

    def __init__(self, roles: Roles, rows: int) -> None:
        super().__init__()
        self._roles, self._rows = dict(roles), rows
        self.context: Any = None
        self.layers: tuple[Layer, ...] = ()

    def call(self, model: Any) -> Any:
        """Rewrite a model in place."""
        graph, rows = model.graph, self._rows
        classes = classes_of(graph, self._roles)
        pairs = [
            (site.scores, (site.scores.inputs[1], site.mix.inputs[1]))
            for site in sites_of(graph)
            if classes[site.scores.inputs[1]] == classes[site.mix.inputs[1]] == CONTEXT
        ]
        crossing = [one for _, pair in pairs for one in pair]
        for node in graph:
            if classes[node.outputs[0]] == CONTEXT:
                continue
            for value in node.inputs:
                if classes[value] == CONTEXT and value not in crossing:
                    raise UnsupportedCheckpoint(
                        "the text reaches the network in another way than as keys and values of cross-attention",
                        value=f"{node.op_type} {node.name or node.outputs[0].name}",
                    )
        if not pairs or len(set(crossing)) != len(crossing):
            raise UnsupportedCheckpoint(
                "the network has no cross-attention whose keys and values the text alone determines",
                hint="a UNet of Stable Diffusion 1 or 2 is wanted",
            )
        self.layers = tuple(
            _layer(scores, pair, rows, index) for index, (scores, pair) in enumerate(pairs)
        )
        self._cut(model, [pair for _, pair in pairs])
        RemoveUnusedNodesPass()(model)
        return PassResult(model, modified=True)

    def _cut(self, model: Any, pairs: list[tuple[Any, Any]]) -> None:
        graph = model.graph
        texts = [one for one in graph.inputs if self._roles[one.name] == CONTEXT]
        names = [f"{kind}_{index:02d}" for index in range(len(pairs)) for kind in "kv"]
        shapes = [
            (layer.heads, *sizes)
            for layer, (key, _) in zip(self.layers, pairs, strict=True)
            for sizes in (
                (layer.head_dim, int(key.shape[-1])),
                (int(key.shape[-1]), layer.head_dim),
            )
        ]
        values = [one for pair in pairs for one in pair]
        part = ir.convenience.extract(graph, texts, values)
        self.context = ir.Model(part, ir_version=model.ir_version)
        self.context.opset_imports.update(model.opset_imports)
        first = next(iter(graph))
        graph.inputs[:] = [one for one in graph.inputs if one not in texts]
        for value, made, name, shape in zip(values, list(part.outputs), names, shapes, strict=True):
            outside = ir.Value(name=name, type=value.type, shape=ir.Shape(["R", "B", *shape]))
            graph.inputs.append(outside)
            inner = list(value.shape.numpy())[1:]
            flat = constant(graph, f"{name}_rows_shape", np.array([-1, *inner], np.int64))
            rows = add_node(first, "Reshape", [outside, flat], f"{name}_rows", like=value,
                            shape=["R*B" if len(inner) == 3 else f"{shape[0]}*R*B", *inner])  # fmt: skip
            ir.convenience.replace_all_uses_with(value, rows)
            _give_heads(part, made, name, shape, self._rows)
        declare_rows(self.context, self._roles, self._rows)


def _give_heads(part: Any, made: Any, name: str, shape: tuple[int, ...], rows: int) -> None:
    """Name an output of the context graph, and split heads off its rows where the network holds them there."""
    if len(made.shape) == 4:
        made.name = name
        return
    index = list(part.outputs).index(made)
    target = constant(part, f"{name}_heads_shape", np.array([-1, *shape], np.int64))
    node = ir.node("Reshape", [made, target], name=f"{name}_heads")
    part.append(node)
    out = node.outputs[0]
    out.name, out.type, out.shape = name, made.type, ir.Shape([rows, *shape])
    part.outputs[index] = out


def _layer(scores: Any, pair: tuple[Any, Any], rows: int, index: int) -> Layer:
    """A layer from the shapes of its keys ``[N, heads, dim, T]`` and values, or ``[N · heads, dim, T]``."""
    key, value = (list(one.shape.numpy()) for one in pair)
    heads = key[1] if len(key) == 4 else key[0] // rows
    flat = len(key) == 3
    wanted = [key[0], *([] if flat else [heads]), key[-1], key[-2]]
    if len(key) not in (3, 4) or value != wanted or (not flat and key[0] != rows):
        raise UnsupportedCheckpoint(
            "keys and values of a cross-attention have an unknown form",
            value=(tuple(key), tuple(value)),
        )
    return Layer(_name_of(scores) or f"layer_{index:02d}", int(heads), int(key[-2]))


def _name_of(node: Any) -> str:
    """The module that a node came from, as far as the exporter wrote it down."""
    for text in (node.metadata_props.get(_SCOPES, ""), node.name or ""):
        found = _PLACE.findall(text)
        if found:
            return str(found[-1]).replace("/", ".")
    return ""
