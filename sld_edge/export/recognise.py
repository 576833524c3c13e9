"""What a path that is no checkpoint is instead: said in the error, with what to do about it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path

from sld_edge.errors import InvalidInput

_FIRST = "model_index.json"
_CONVERT = "convert it with diffusers' from_single_file(…).save_pretrained(folder)"
_FUSE = "load it into its base model with diffusers, fuse it (load_lora_weights, fuse_lora) and save_pretrained(folder)"
_ADD = (
    "add its vectors to the tokenizer and the text encoder with diffusers (load_textual_inversion) and"
    " save_pretrained(folder)"
)
_WEIGHTS = (".safetensors", ".ckpt", ".pt", ".pth", ".bin")
_LORA = re.compile(r"(^|[._])lora([._]|$)|lora_(unet|te|down|up|a|b)|hada_w1", re.IGNORECASE)
#: Names that peft, diffusers and its training scripts give to such files.
_LORA_FILES = ("pytorch_lora_weights", "adapter_model", "adapter_config")
_INVERSION_FILES = ("learned_embeds", "learned_embed")
#: Headers larger than this are not read.
_LONGEST_HEADER = 100_000_000


def check_is_checkpoint(path: Path) -> None:
    """Refuse a path that is no folder with a ``model_index.json``; needs no PyTorch.

    Raises:
        InvalidInput: it is something else, or nothing.
    """
    if not (path / _FIRST).is_file():
        raise no_checkpoint(path)


def is_onnx_folder(path: Path) -> bool:
    """Whether a path holds ONNX models, and no weights of PyTorch for its UNet."""
    if not path.is_dir() or next((path / "unet").glob("diffusion_pytorch_model*"), None):
        return False
    return any(
        next((path / name).glob("*.onnx"), None)
        for name in ("unet", "transformer", "text_encoder", "vae_decoder", "vae_encoder")
    )


def no_checkpoint(path: Path) -> InvalidInput:
    """The error for a path that is no folder with a ``model_index.json``."""
    if path.is_file():
        kind, hint = _file_kind(path)
        return InvalidInput(f"{kind}, not a folder in diffusers layout", value=str(path), hint=hint)
    if not path.exists():
        return InvalidInput(*_absent(path))
    kind, hint = _folder_kind(path)
    return InvalidInput(
        f"no diffusers checkpoint here, there is no {_FIRST}{kind}", value=str(path), hint=hint
    )


def lying_beside(path: Path) -> list[str]:
    """Files in a checkpoint that change nothing there: LoRA weights and textual inversions, with what they are."""
    found = []
    for file in sorted(path.iterdir()):
        if file.is_file() and file.suffix in _WEIGHTS:
            kind, _ = _file_kind(file)
            if kind in (_IS_LORA, _IS_INVERSION):
                found.append(f"{file.name} is not applied: {kind}")
    return found


_IS_LORA = "this is a LoRA, a change to a model"
_IS_INVERSION = "this is a textual inversion, new words for a model"
_IS_FILE = "the checkpoint is one file"


def _absent(path: Path) -> tuple[str, ...]:
    text = path.as_posix()
    if re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", text) and not path.parent.exists():
        return (
            f"there is no folder {text!r}; if it is a model's id on a hub: nothing is downloaded here"
            " — download the model first, then name its folder",
        )
    return (f"no diffusers checkpoint here, there is no such folder: {text!r}",)


def _file_kind(file: Path) -> tuple[str, str]:
    """What a single file is, and what to do with it."""
    if file.stem in _LORA_FILES:
        return _IS_LORA, _FUSE
    if file.stem in _INVERSION_FILES:
        return _IS_INVERSION, _ADD
    if file.suffix == ".safetensors":
        shapes = _header(file)
        if any(_LORA.search(name) for name in shapes):
            return _IS_LORA, _FUSE
        if shapes and _is_inversion(shapes):
            return _IS_INVERSION, _ADD
        if shapes and not any(name.startswith("model.diffusion_model.") for name in shapes):
            return "the file holds the weights of one network at most", (
                "name the folder that holds model_index.json"
            )
    elif file.suffix not in _WEIGHTS:
        return "this is a file", f"name the folder that holds {_FIRST}"
    elif file.stat().st_size < 1_000_000 and file.suffix in (".pt", ".bin"):
        return "this is a pickle too small for a model, such as a textual inversion", _ADD
    return _IS_FILE, _CONVERT


def _is_inversion(shapes: dict[str, list[int]]) -> bool:
    """Only vectors of the length of a text encoder's tokens."""
    return set(shapes) <= {"emb_params", "clip_l", "clip_g", "string_to_param"} or (
        len(shapes) <= 2
        and all(len(s) in (1, 2) and s[-1] in (768, 1024, 1280) for s in shapes.values())
        and all("weight" not in name and "bias" not in name for name in shapes)
    )


def _header(file: Path) -> dict[str, list[int]]:
    """Names and shapes of the tensors in a safetensors file; none where it is not one."""
    try:
        with file.open("rb") as stream:
            size = int.from_bytes(stream.read(8), "little")
            if not 0 < size <= _LONGEST_HEADER:
                return {}
            data = json.loads(stream.read(size))
        return {name: entry["shape"] for name, entry in data.items() if name != "__metadata__"}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _folder_kind(folder: Path) -> tuple[str, str]:
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        return f" that could be read ({error.strerror})", ""
    files = [entry for entry in entries if entry.is_file()]
    names = {file.name for file in files}
    if "manifest.json" in names and (folder / "graphs").is_dir():
        return "; this is a bundle already", "use it with sld-generate, or name its checkpoint"
    kinds = _kinds(files)
    if any(file.stem in _LORA_FILES for file in files) or _IS_LORA in kinds:
        return "; this is the folder of a LoRA, a change to a model", _FUSE
    if _IS_INVERSION in kinds:
        return "; this is the folder of a textual inversion, new words for a model", _ADD
    for file in files:
        if file.name == "config.json":
            return f"; this is one part of a checkpoint ({_class_of(file)})", (
                f"name the folder that holds {_FIRST}"
            )
    nested = next(
        (
            found
            for depth in ("*", "*/*", "*/*/*")
            for found in sorted(folder.glob(f"{depth}/{_FIRST}"))
        ),
        None,
    )
    if nested is not None:
        return "; there is one further down", f"name {nested.parent}"
    single = [file for file in files if file.suffix in _WEIGHTS]
    if single:
        return f"; it holds a checkpoint of one file, {single[0].name}", _CONVERT
    return ("", "") if entries else ("; the folder is empty", "")


def _kinds(files: Iterable[Path]) -> set[str]:
    return {_file_kind(file)[0] for file in files if file.suffix in _WEIGHTS}


def _class_of(config: Path) -> str:
    try:
        data = json.loads(config.read_text("utf-8"))
        return str(data.get("_class_name") or (data.get("architectures") or ["unknown"])[0])
    except (OSError, ValueError, AttributeError, LookupError, TypeError):
        return "unknown"
