"""What the graphs of a folder say of themselves: outputs, sizes, widths, types."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from sld_edge.errors import UnsupportedCheckpoint
from sld_edge.export.onnx_folder.load import tail
from sld_edge.export.onnx_folder.roles import IDS, TEXT

UNET, TEXT_ENCODER, DECODER = "unet", "text_encoder", "vae_decoder"
_OUTPUTS: Final = {UNET: "out_sample", TEXT_ENCODER: "last_hidden_state", DECODER: "sample"}


def keep_output(network: str, model: Any) -> None:
    """Leave a model the one output that is used: by its name, or the only one."""
    outputs = list(model.graph.outputs)
    wanted = [one for one in outputs if one.name == _OUTPUTS[network]] or (
        outputs if len(outputs) == 1 else []
    )
    if len(wanted) != 1:
        raise UnsupportedCheckpoint(
            f"the {network} has no output {_OUTPUTS[network]}", value=[one.name for one in outputs]
        )
    model.graph.outputs[:] = wanted


def sizes_of(value: Any, rank: int) -> list[int | None]:
    """The sizes of a value, None where they are free."""
    if value.shape is None:
        return [None] * rank
    return [size if isinstance(size, int) else None for size in value.shape]


def input_sizes(model: Any, name: str, rank: int) -> list[int | None]:
    """The sizes of an input, None where they are free."""
    value = next(one for one in model.graph.inputs if one.name == name)
    sizes = sizes_of(value, rank)
    if len(sizes) != rank:
        raise UnsupportedCheckpoint(f"the input {name} has {len(sizes)} dimensions, not {rank}")
    return sizes


def one_of(first: int | None, second: int | None) -> int | None:
    """Of two sizes that must agree, the one that is there."""
    if first is not None and second is not None and first != second:
        raise UnsupportedCheckpoint(
            "the UNet and the VAE were exported for different sizes", value=(first, second)
        )
    return first if first is not None else second


def width_of(model: Any, config: Mapping[str, Any]) -> int:
    """The length of a text's vectors: declared, in the first product that reads them, or configured."""
    value = next(one for one in model.graph.inputs if one.name == TEXT)
    declared = sizes_of(value, 3)[-1]
    if declared is not None:
        return declared
    for use in value.uses():
        weight = use.node.inputs[1] if use.node.op_type == "MatMul" and use.idx == 0 else None
        if weight is not None and weight.const_value is not None and len(weight.shape) == 2:
            return int(weight.shape[0])
    size = config.get("cross_attention_dim")
    if not isinstance(size, int):
        raise UnsupportedCheckpoint("nothing says how long the vectors of a text are", value=size)
    return size


def factor_of(path: Path, config: Mapping[str, Any], model: Any) -> int:
    """Pixels for one latent element, on a side."""
    blocks = config.get("block_out_channels")
    if isinstance(blocks, list) and blocks:
        return int(2 ** (len(blocks) - 1))
    before, after = input_sizes(model, "latent_sample", 4), sizes_of(model.graph.outputs[0], 4)
    if before[2] and len(after) == 4 and after[2]:
        return after[2] // before[2]
    doublings = sum(node.op_type == "Resize" for node in model.graph)
    if not doublings:
        raise UnsupportedCheckpoint(
            "nothing says how many pixels a latent element stands for", value=tail(path)
        )
    return int(2**doublings)


def is_half(models: Mapping[str, Any]) -> bool:
    """Whether the denoiser computes in float16."""
    import onnx_ir as ir

    kinds = {
        name: next(one.dtype for one in model.graph.inputs if one.name not in (IDS, "timestep"))
        if name != TEXT_ENCODER
        else model.graph.outputs[0].dtype
        for name, model in models.items()
    }
    for name, kind in kinds.items():
        if kind not in (ir.DataType.FLOAT, ir.DataType.FLOAT16):
            raise UnsupportedCheckpoint(f"the {name} computes in an unknown type", value=str(kind))
    return bool(kinds[UNET] == ir.DataType.FLOAT16)
