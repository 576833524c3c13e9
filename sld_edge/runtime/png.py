"""Pictures with their settings inside: the text other Stable Diffusion tools read, and the full record."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import Any

from PIL import Image, PngImagePlugin

from sld_edge.errors import ImageFileError
from sld_edge.runtime.infotext import parameters_from_record
from sld_edge.writing import write_atomically, write_new

PARAMETERS = "parameters"
RECORD = "sld_edge"


class RecordedImage(Image.Image):
    """A Pillow image that takes its settings and record along when it is saved as PNG.

    They are ``info["parameters"]`` and ``info["sld_edge"]``, under the names that Pillow gives them when it reads the
    file. Other formats have no such place, and what is made of the picture (resized, cropped) is a plain image.
    """

    def save(self, fp: Any, format: str | None = None, **params: Any) -> None:
        """As Pillow's; ``pnginfo`` of one's own replaces the texts."""
        name = fp if isinstance(fp, (str, bytes, os.PathLike)) else getattr(fp, "name", "")
        suffix = "" if isinstance(name, int) else Path(os.fsdecode(name)).suffix
        if (format or suffix.lstrip(".")).upper() in ("PNG", "APNG"):
            params = {"pnginfo": _texts(self.info), **params}
        super().save(fp, format, **params)


def recorded(image: Image.Image, record: dict[str, Any]) -> RecordedImage:
    """The picture as one that carries its record; the same object, no pixel is copied.

    Args:
        image: A plain image.
        record: One of :meth:`SafeOutput.records`.
    """
    image.__class__ = RecordedImage
    image.info |= {PARAMETERS: parameters_from_record(record), RECORD: _json(record)}
    assert isinstance(image, RecordedImage)
    return image


def save_png(image: Image.Image, path: Path, record: dict[str, Any]) -> None:
    """Write a picture and its record, all or nothing.

    Args:
        image: The picture.
        path: File to write; an existing one is replaced.
        record: One of :meth:`SafeOutput.records`.

    Raises:
        ImageFileError: the disk is full, the folder is missing or not writable.
    """
    try:
        write_atomically(path, _png(image, record))
    except OSError as error:
        raise ImageFileError(f"cannot write {path} ({error.strerror})") from None


def save_new_png(image: Image.Image, folder: Path, stem: str, record: dict[str, Any]) -> Path:
    """Write a picture and its record under the first name that is free, which no other writer can take meanwhile.

    Args:
        image: The picture.
        folder: Where to write.
        stem: The name without a number and without ``.png``.
        record: One of :meth:`SafeOutput.records`.

    Returns:
        ``folder/stem.png``, or ``stem-2.png``, ``stem-3.png``, …

    Raises:
        ImageFileError: as for :func:`save_png`.
    """
    try:
        return write_new(folder, stem, ".png", _png(image, record))
    except OSError as error:
        raise ImageFileError(f"cannot write to {folder} ({error.strerror})") from None


def read_record(path: str | os.PathLike[str]) -> dict[str, Any] | None:
    """The record of a picture that carries one, None for any other picture.

    Raises:
        ImageFileError: there is no picture, or what it carries under our name is no record.
    """
    try:
        with Image.open(path) as image:
            text = image.info.get(RECORD)  # it stands before the pixels, which need not be read
        record = None if text is None else json.loads(text)
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise ImageFileError(f"cannot read {path} ({error})") from None
    return record if isinstance(record, dict) else None


def _png(image: Image.Image, record: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    info = {PARAMETERS: parameters_from_record(record), RECORD: _json(record)}
    Image.Image.save(image, buffer, format="PNG", pnginfo=_texts(info))
    return buffer.getvalue()


def _texts(info: dict[Any, Any]) -> PngImagePlugin.PngInfo:
    """Both texts as PNG chunks: ASCII as the oldest readers take it, everything else as UTF-8."""
    chunks = PngImagePlugin.PngInfo()
    for name in (PARAMETERS, RECORD):
        text = info.get(name)
        if isinstance(text, str):
            plain = name == PARAMETERS and text.isascii()
            chunks.add_text(name, text) if plain else chunks.add_itxt(name, text)
    return chunks


def _json(record: dict[str, Any]) -> str:
    return json.dumps(record, ensure_ascii=False)
