"""Pictures with their settings inside: the text other Stable Diffusion tools read, and the full record."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import Any

from PIL import Image, PngImagePlugin

from sld_edge.errors import ImageFileError
from sld_edge.files import write_atomically

PARAMETERS = "parameters"
RECORD = "sld_edge"

#: How the schedulers are called in the interfaces that read ``parameters``.
_SAMPLER_LABELS = {
    "ddim": "DDIM",
    "pndm": "PLMS",
    "euler": "Euler",
    "euler_karras": "Euler Karras",
    "euler_ancestral": "Euler a",
    "dpmpp_2m": "DPM++ 2M",
    "dpmpp_2m_karras": "DPM++ 2M Karras",
    "lms": "LMS",
    "lms_karras": "LMS Karras",
    "unipc": "UniPC",
    "unipc_karras": "UniPC Karras",
    "lcm": "LCM",
}


def save_png(image: Image.Image, path: Path, record: dict[str, Any]) -> None:
    """Write a picture and its record, all or nothing.

    Args:
        image: The picture.
        path: File to write; an existing one is replaced.
        record: One of :meth:`SafeOutput.records`.

    Raises:
        ImageFileError: the disk is full, the folder is missing or not writable.
    """
    info = PngImagePlugin.PngInfo()
    text = parameters_from_record(record)
    if text.isascii():
        info.add_text(PARAMETERS, text)
    else:
        info.add_itxt(PARAMETERS, text)
    info.add_itxt(RECORD, json.dumps(record, ensure_ascii=False))
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", pnginfo=info)
    try:
        write_atomically(path, buffer.getvalue())
    except OSError as error:
        raise ImageFileError(f"cannot write {path} ({error.strerror})") from None


def read_record(path: str | os.PathLike[str]) -> dict[str, Any] | None:
    """The record of a picture that :func:`save_png` wrote, None for any other picture."""
    try:
        with Image.open(path) as image:
            text = getattr(image, "text", {}).get(RECORD)
    except OSError as error:
        raise ImageFileError(f"cannot read {path} ({error})") from None
    return None if text is None else json.loads(text)


def free_path(folder: Path, stem: str) -> Path:
    """``folder/stem.png``, or the first of ``stem-2.png``, ``stem-3.png``, … that does not exist."""
    path = folder / f"{stem}.png"
    number = 1
    while path.exists():
        number += 1
        path = folder / f"{stem}-{number}.png"
    return path


def parameters_from_record(record: dict[str, Any]) -> str:
    """Prompt, negative prompt and settings in the notation that began with stable-diffusion-webui."""
    scheduler = record["scheduler"]
    fields: dict[str, Any] = {
        "Steps": record["steps"],
        "Sampler": _SAMPLER_LABELS.get(scheduler, scheduler),
        "CFG scale": record["guidance_scale"],
        "Seed": record["seed"],
        "Size": f"{record['width']}x{record['height']}",
        "Model": record["bundle"]["name"],
        "RNG": {"cpu": "CPU", "cuda": "GPU"}.get(record["seed_device"], record["seed_device"]),
        **_safety_fields(record["safety"]),
        "Version": f"sld-edge {record['sld_edge']}",
    }
    if record["nsfw_detected"] is not None:
        fields["Safety head"] = "flagged" if record["nsfw_detected"] else "clear"
    settings = ", ".join(
        f"{name}: {_quoted(value)}" for name, value in fields.items() if value is not None
    )
    lines = [record["prompt"]]
    if record["negative_prompt"]:
        lines.append(f"Negative prompt: {record['negative_prompt']}")
    return "\n".join([*lines, settings])


def _safety_fields(safety: dict[str, Any]) -> dict[str, Any]:
    if safety["preset"] == "off":
        return {"SLD": "off"}
    return {
        "SLD": safety["preset"] or "custom",
        "SLD scale": safety["guidance_scale"],
        "SLD warmup": safety["warmup_steps"],
        "SLD threshold": safety["threshold"],
        "SLD momentum": safety["momentum_scale"],
        "SLD beta": safety["mom_beta"],
        "SLD concept": "; ".join(safety["concepts"]),
    }


def _quoted(value: Any) -> str:
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return json.dumps(text, ensure_ascii=False) if set(text) & set(",:\n") else text
