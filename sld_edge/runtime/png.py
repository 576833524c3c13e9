"""Pictures with their settings inside: the text other Stable Diffusion tools read, and the full record."""

from __future__ import annotations

import io
import json
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, PngImagePlugin

from sld_edge.errors import ImageFileError
from sld_edge.plain import whole_number
from sld_edge.runtime.infotext import parameters_from_record
from sld_edge.writing import write_atomically, write_new

PARAMETERS = "parameters"
RECORD = "sld_edge"
#: Default compression level.
PNG_LEVEL = 1
#: From this level on Pillow writes the file.
_BY_PILLOW = 2
_SIGNATURE = b"\x89PNG\r\n\x1a\n"


class RecordedImage(Image.Image):
    """A Pillow image that takes its settings and record along when it is saved as PNG.

    They are ``info["parameters"]`` and ``info["sld_edge"]``, under the names that Pillow gives them when it reads the
    file. Other formats have no such place, and what is made of the picture (resized, cropped) is a plain image.
    """

    def save(self, fp: Any, format: str | None = None, **params: Any) -> None:
        """As Pillow's; ``pnginfo`` of one's own replaces the texts, ``compress_level`` begins at :data:`PNG_LEVEL`."""
        name = fp if isinstance(fp, (str, bytes, os.PathLike)) else getattr(fp, "name", "")
        suffix = "" if isinstance(name, int) else Path(os.fsdecode(name)).suffix
        if (format or suffix.lstrip(".")).upper() in ("PNG", "APNG"):
            params = {"pnginfo": _texts(self.info), "compress_level": PNG_LEVEL, **params}
            if params.keys() == {"pnginfo", "compress_level"} and _is_quick(self, params):
                _write(fp, _quick(self, params["pnginfo"], params["compress_level"]))
                return
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


def checked_level(level: Any) -> int:
    """The compression level, 0 to 9.

    Raises:
        InvalidInput: it is none.
    """
    return whole_number("the PNG's compression level", level, low=0, high=9)


def save_png(
    image: Image.Image, path: Path, record: dict[str, Any], *, level: int = PNG_LEVEL
) -> None:
    """Write a picture and its record, all or nothing.

    Args:
        image: The picture.
        path: File to write; an existing one is replaced.
        record: One of :meth:`SafeOutput.records`.
        level: Compression, 0 (none) to 9. 1 takes a quarter of the time of 6, for a file about as large; from 2 on
            Pillow writes it.

    Raises:
        ImageFileError: the disk is full, the folder is missing or not writable.
        InvalidInput: there is no such level.
    """
    try:
        write_atomically(path, _png(image, record, level))
    except OSError as error:
        raise ImageFileError(f"cannot write {path} ({error.strerror})") from None


def save_new_png(
    image: Image.Image, folder: Path, stem: str, record: dict[str, Any], *, level: int = PNG_LEVEL
) -> Path:
    """Write a picture and its record under the first name that is free, which no other writer can take meanwhile.

    Args:
        image: The picture.
        folder: Where to write.
        stem: The name without a number and without ``.png``.
        record: One of :meth:`SafeOutput.records`.
        level: As for :func:`save_png`.

    Returns:
        ``folder/stem.png``, or ``stem-2.png``, ``stem-3.png``, …

    Raises:
        ImageFileError: as for :func:`save_png`.
    """
    try:
        return write_new(folder, stem, ".png", _png(image, record, level))
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


def _png(image: Image.Image, record: dict[str, Any], level: int) -> bytes:
    level = checked_level(level)
    texts = _texts({PARAMETERS: parameters_from_record(record), RECORD: _json(record)})
    if image.mode == "RGB" and level < _BY_PILLOW:
        return _quick(image, texts, level)
    buffer = io.BytesIO()
    Image.Image.save(image, buffer, format="PNG", pnginfo=texts, compress_level=level)
    return buffer.getvalue()


def _is_quick(image: Image.Image, params: dict[str, Any]) -> bool:
    """Whether :func:`_quick` writes all that the picture has: colours, and no texts or profiles but ours."""
    level = params["compress_level"]
    return (
        image.mode == "RGB"
        and image.info.keys() <= {PARAMETERS, RECORD}
        and isinstance(params["pnginfo"], PngImagePlugin.PngInfo)
        and not any(chunk[2:] == (True,) for chunk in params["pnginfo"].chunks)  # after the pixels
        and isinstance(level, int)
        and 0 <= level < _BY_PILLOW
    )


def _quick(image: Image.Image, texts: PngImagePlugin.PngInfo, level: int) -> bytes:
    """A picture in RGB as a PNG file: every row as its difference to the one above, run lengths and Huffman codes.

    Pillow tries five filters for every row and looks for repetitions, of which pictures of this kind have none: five
    times the time, for the same size.
    """
    pixels = np.asarray(image)
    height, width, channels = pixels.shape
    flat = pixels.reshape(height, width * channels)
    rows = np.empty((height, 1 + width * channels), np.uint8)
    rows[:, 0] = 2  # the filter's number in PNG: up
    rows[0, 1:] = flat[0]
    np.subtract(flat[1:], flat[:-1], out=rows[1:, 1:])
    packer = zlib.compressobj(level, zlib.DEFLATED, zlib.MAX_WBITS, 9, zlib.Z_RLE)
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    buffer = io.BytesIO()
    buffer.write(_SIGNATURE)
    PngImagePlugin.putchunk(buffer, b"IHDR", header)
    for chunk in texts.chunks:
        PngImagePlugin.putchunk(buffer, chunk[0], chunk[1])
    PngImagePlugin.putchunk(buffer, b"IDAT", packer.compress(rows.data) + packer.flush())
    PngImagePlugin.putchunk(buffer, b"IEND")
    return buffer.getvalue()


def _write(target: Any, data: bytes) -> None:
    if isinstance(target, (str, bytes, os.PathLike)):
        Path(os.fsdecode(target)).write_bytes(data)
    else:
        target.write(data)


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
