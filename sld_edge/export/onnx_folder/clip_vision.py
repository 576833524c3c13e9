"""CLIP's vision network of a safety checker, written as a graph from its safetensors; needs no torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from sld_edge.errors import InvalidInput, UnsupportedCheckpoint
from sld_edge.export.checkpoint import read_json
from sld_edge.export.onnx_folder.build import Builder, empty_model, graph_input, graph_output
from sld_edge.export.onnx_folder.safety import Concepts, unit

_NAMES: Final = (
    "concept_embeds",
    "concept_embeds_weights",
    "special_care_embeds",
    "special_care_embeds_weights",
)
#: Every prefix that releases of transformers put before the network's weights.
_PREFIXES: Final = ("vision_model.vision_model.", "vision_model.")
_ACTIVATIONS: Final = ("quick_gelu", "gelu")


class Checker:
    """A safety checker's folder: ``config.json`` and ``model.safetensors``.

    Raises:
        InvalidInput: a file is missing or damaged, or a weight is missing or not finite.
        UnsupportedCheckpoint: its network has an option that the graph would not follow.
    """

    def __init__(self, folder: Path) -> None:
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        config = read_json(folder / "config.json")
        self._vision: Mapping[str, Any] = config.get("vision_config") or {}
        file = folder / "model.safetensors"
        try:
            self._weights = load_file(file)
        except (SafetensorError, OSError, ValueError) as error:
            raise InvalidInput(
                f"the safety checker's weights are damaged or missing ({str(error)[:100]})",
                value="/".join(file.parts[-2:]), hint="restore the file",
            ) from None  # fmt: skip
        self._prefix = next(
            (one for one in _PREFIXES if f"{one}embeddings.class_embedding" in self._weights),
            _PREFIXES[0],
        )
        activation = self._vision.get("hidden_act", "quick_gelu")
        if activation not in _ACTIVATIONS:
            raise UnsupportedCheckpoint(
                "the safety checker's activation is not known", value=activation
            )
        for name, array in self._weights.items():
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                raise InvalidInput("the safety checker has a weight that is not finite", value=name)

    def concepts(self) -> Concepts:
        """What pictures are compared with."""
        concepts, thresholds, special, special_thresholds = (self._take(name) for name in _NAMES)
        return Concepts(unit(concepts), thresholds, unit(special), special_thresholds)

    def embed_model(self, opset: int) -> Any:
        """A model ``[B, 3, s, s]`` float32 → ``[B, D]``: the projected embedding, not normalised."""
        model = empty_model("vision", opset)
        side = int(self._vision.get("image_size", 224))
        patch = int(self._vision.get("patch_size", 32))
        heads = int(self._vision.get("num_attention_heads", 12))
        epsilon = float(self._vision.get("layer_norm_eps", 1e-5))
        pixels = graph_input(model.graph, "pixels", ir.DataType.FLOAT, ["B", 3, side, side])
        make = Builder(model.graph, "clip")
        kernel = self._own("embeddings.patch_embedding.weight")
        width, tokens = kernel.shape[0], (side // patch) ** 2
        patches = make("Conv", pixels, kernel, shape=["B", width, side // patch, side // patch],
                       strides=[patch, patch], kernel_shape=[patch, patch])  # fmt: skip
        flat = make("Reshape", patches, [0, width, tokens], shape=["B", width, tokens])
        rows = make("Transpose", flat, shape=["B", tokens, width], perm=(0, 2, 1))
        tokens += 1
        # The class's vector before every picture's patches: one row of padding, to which it is added with the places.
        padded = make("Pad", rows, [0, 1, 0, 0, 0, 0], shape=["B", tokens, width], mode="constant")
        places = self._own("embeddings.position_embedding.weight").copy()
        if len(places) != tokens:
            raise UnsupportedCheckpoint(
                f"the safety checker has places for {len(places)} patches, its pictures have",
                value=tokens,
            )
        places[0] += self._own("embeddings.class_embedding")
        hidden = make("Add", padded, places[None], shape=["B", tokens, width])
        shape: list[int | str] = ["B", tokens, width]

        def norm(value: Any, name: str, sizes: list[Any]) -> Any:
            return make("LayerNormalization", value, self._own(f"{name}.weight"), self._own(f"{name}.bias"),
                        shape=sizes, axis=-1, epsilon=epsilon)  # fmt: skip

        def linear(value: Any, name: str, sizes: list[Any]) -> Any:
            product = make(
                "MatMul", value, np.ascontiguousarray(self._own(f"{name}.weight").T), shape=sizes
            )
            return make("Add", product, self._own(f"{name}.bias"), shape=sizes)

        hidden = norm(hidden, "pre_layrnorm", shape)
        dim = width // heads
        layers = int(self._vision.get("num_hidden_layers", 12))
        for index in range(layers):
            name = f"encoder.layers.{index}"
            inner = norm(hidden, f"{name}.layer_norm1", shape)
            query, key, value = (
                make("Reshape", linear(inner, f"{name}.self_attn.{part}_proj", shape), [0, 0, heads, dim],
                     shape=["B", tokens, heads, dim])
                for part in "qkv"
            )  # fmt: skip
            query, value = (
                make("Transpose", one, shape=["B", heads, tokens, dim], perm=(0, 2, 1, 3))
                for one in (query, value)
            )
            key = make("Transpose", key, shape=["B", heads, dim, tokens], perm=(0, 2, 3, 1))
            query = make("Mul", query, dim**-0.5, shape=["B", heads, tokens, dim])
            square: list[int | str] = ["B", heads, tokens, tokens]
            weights = make(
                "Softmax", make("MatMul", query, key, shape=square), shape=square, axis=-1
            )
            mixed = make("MatMul", weights, value, shape=["B", heads, tokens, dim])
            turned = make("Transpose", mixed, shape=["B", tokens, heads, dim], perm=(0, 2, 1, 3))
            together = make("Reshape", turned, [0, 0, width], shape=shape)
            hidden = make(
                "Add", hidden, linear(together, f"{name}.self_attn.out_proj", shape), shape=shape
            )
            inner = norm(hidden, f"{name}.layer_norm2", shape)
            wide = ["B", tokens, self._own(f"{name}.mlp.fc1.bias").shape[0]]
            inner = self._activated(make, linear(inner, f"{name}.mlp.fc1", wide), wide)
            hidden = make("Add", hidden, linear(inner, f"{name}.mlp.fc2", shape), shape=shape)
        first = make(
            "Gather", hidden, make.constant(np.array(0, np.int64)), shape=["B", width], axis=1
        )
        pooled = norm(first, "post_layernorm", ["B", width])
        projection = np.ascontiguousarray(self._take("visual_projection.weight").T)
        out = make("MatMul", pooled, projection, shape=["B", projection.shape[1]])
        graph_output(model.graph, out, "projected")
        return model

    def _activated(self, make: Builder, value: Any, shape: list[Any]) -> Any:
        if self._vision.get("hidden_act", "quick_gelu") == "gelu":
            return make("Gelu", value, shape=shape)
        gate = make("Sigmoid", make("Mul", value, 1.702, shape=shape), shape=shape)
        return make("Mul", value, gate, shape=shape)

    def _own(self, name: str) -> NDArray[np.float32]:
        return self._take(self._prefix + name)

    def _take(self, name: str) -> NDArray[np.float32]:
        if name not in self._weights:
            raise InvalidInput(
                "the safety checker lacks a weight", value=name, hint="restore model.safetensors"
            )
        return self._weights[name].astype(np.float32)
