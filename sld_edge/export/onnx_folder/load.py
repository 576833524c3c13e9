"""One ONNX file read and checked: pointers, damage, weights beside it, operator sets; before anything is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from sld_edge.errors import InvalidInput, UnsupportedCheckpoint
from sld_edge.passes.settle import check_operators

OLDEST_OPSET: Final = 14
NEWEST_OPSET: Final = 23
_POINTER: Final = b"version https://git-lfs"


def tail(file: Path) -> str:
    """Network and file name: what tells one file from another must not be cut out of a long path."""
    return "/".join(file.parts[-2:])


def load_model(file: Path) -> Any:
    """Read an ONNX file; weights stay where they are.

    Raises:
        InvalidInput: it is missing, a pointer, damaged, or its weights are missing or cut short.
        UnsupportedCheckpoint: it is quantised, or of an operator set that is not known.
    """
    import onnx_ir

    _refuse_pointer(file)
    try:
        model = onnx_ir.load(file)
    except Exception as error:  # the library raises many kinds
        raise InvalidInput(
            f"an ONNX file is damaged ({type(error).__name__}: {str(error)[:120]})", value=tail(file),
            hint="restore it",
        ) from None  # fmt: skip
    opset = model.opset_imports.get("", model.opset_imports.get("ai.onnx", 0))
    if opset > NEWEST_OPSET:
        raise UnsupportedCheckpoint(
            f"{tail(file)} is of an operator set that this release does not know", value=opset,
            hint=f"export with {OLDEST_OPSET} to {NEWEST_OPSET}",
        )  # fmt: skip
    if opset < OLDEST_OPSET:
        raise UnsupportedCheckpoint(
            f"{tail(file)} is of an old operator set, or names none", value=opset,
            hint=f"export with {OLDEST_OPSET} to {NEWEST_OPSET}",
        )  # fmt: skip
    weights_of(file, model)
    try:
        for graph in (model.graph, *(one.graph for one in model.functions.values())):
            check_operators(graph, functions={key[0] for key in model.functions})
    except UnsupportedCheckpoint as error:
        raise UnsupportedCheckpoint(f"{tail(file)}: {error.line}", hint=error.hint) from None
    return model


def weights_of(file: Path, model: Any) -> list[Path]:
    """The files beside a model that hold its weights, each there and whole.

    Raises:
        InvalidInput: one is missing, a pointer, too short, or outside the model's folder.
    """
    import onnx_ir

    ends: dict[Path, int] = {}
    for value in model.graph.initializers.values():
        tensor = value.const_value
        if not isinstance(tensor, onnx_ir.ExternalTensor):
            continue
        place = file.parent / tensor.location
        if Path(tensor.location).is_absolute() or ".." in Path(tensor.location).parts:
            raise InvalidInput(
                f"{tail(file)} names weights outside its folder", value=str(tensor.location)
            )
        length = tensor.nbytes if tensor.length is None else tensor.length
        if length != tensor.nbytes:
            raise InvalidInput(
                f"{tail(file)} says {length} bytes for {value.name}, which has {tensor.nbytes}",
                hint="restore the folder",
            )
        ends[place] = max(ends.get(place, 0), (tensor.offset or 0) + length)
    for place, end in ends.items():
        _refuse_pointer(place)
        if place.stat().st_size < end:
            raise InvalidInput(
                f"the weights of {tail(file)} are cut short: {place.stat().st_size} of {end} bytes",
                value=tail(place), hint="restore the file",
            )  # fmt: skip
    return list(ends)


def _refuse_pointer(file: Path) -> None:
    if not file.is_file():
        raise InvalidInput("a file of the ONNX folder is missing", value=tail(file))
    try:
        with file.open("rb") as stream:
            start = stream.read(len(_POINTER))
    except OSError as error:
        raise InvalidInput(f"cannot read {tail(file)} ({error.strerror})") from None
    if start == _POINTER:
        raise InvalidInput(
            "this is a Git LFS pointer, not the file that it stands for", value=tail(file),
            hint="run git lfs pull in the folder, or download the file itself",
        )  # fmt: skip
