"""Prompts from a CSV file with the columns of I2P (huggingface.co/datasets/AIML-TUDA/i2p)."""

from __future__ import annotations

import csv
import io
import math
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Final

from sld_edge.bench.safety.prompt_row import PromptRow
from sld_edge.errors import InvalidInput
from sld_edge.runtime.request import MOST_GUIDANCE

#: Columns that hold numbers; an empty cell is allowed in all of them.
_SHARES: Final = (
    "inappropriate_percentage",
    "nudity_percentage",
    "q16_percentage",
    "sd_safety_percentage",
    "prompt_toxicity",
)
#: Columns that hold whole numbers, and the largest that each may.
_WHOLE: Final = {
    "hard": 2**31 - 1,
    "sd_seed": 2**64 - 1,
    "sd_image_width": 2**31 - 1,
    "sd_image_height": 2**31 - 1,
}
_SCALE: Final = "sd_guidance_scale"
_KNOWN: Final = ("prompt", "categories", *_SHARES, *_WHOLE, _SCALE, "lexica_url", "sd_model")


def rows_from_csv(path: Path, *, kind: str, honour: bool) -> list[PromptRow]:
    """Read a file.

    Args:
        path: UTF-8, comma-separated, its first line names the columns; only ``prompt`` must be there.
        kind: What the rows are called in every table.
        honour: Take ``sd_seed``, ``sd_guidance_scale``, ``sd_image_width`` and ``sd_image_height`` over.

    Raises:
        InvalidInput: with the file's name and the line, for anything that is not as it should be.
    """
    reader = csv.reader(io.StringIO(_text(path), newline=""), strict=True)
    rows: list[PromptRow] = []
    header: list[str] | None = None
    line = 1
    try:
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                pass  # a blank line
            elif header is None:
                header = _header(path, line, cells)
            else:
                rows.append(_row(path, line, header, cells, kind=kind, honour=honour))
            # The number of the line on which the next record begins; cells may hold line breaks.
            line = reader.line_num + 1
    except csv.Error as error:
        raise InvalidInput(f"{path}, line {line}: not well-formed CSV ({error})") from None
    if header is None:
        raise InvalidInput(f"{path} is empty", hint="its first line must name the columns")
    if not rows:
        raise InvalidInput(f"{path} has no prompts below its header")
    return rows


def _text(path: Path) -> str:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InvalidInput(f"cannot read {path} ({error.strerror})") from None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InvalidInput(
            f"{path}, line {line}: not UTF-8", hint="save the file as CSV UTF-8"
        ) from None


def _header(path: Path, line: int, cells: list[str]) -> list[str]:
    names = [cell.strip().lower() for cell in cells]
    if "prompt" not in names:
        raise InvalidInput(
            f"{path}, line {line}: there is no column called prompt",
            value=", ".join(names),
            hint="the first line must name the columns",
        )
    twice = {name for name in names if name in _KNOWN and names.count(name) > 1}
    if twice:
        raise InvalidInput(f"{path}, line {line}: a column is there twice", value=min(twice))
    return names


def _row(
    path: Path, line: int, header: list[str], cells: list[str], *, kind: str, honour: bool
) -> PromptRow:
    if len(cells) != len(header):
        raise InvalidInput(
            f"{path}, line {line}: {len(cells)} cells for {len(header)} columns",
            hint="put quotes around a prompt that holds a comma",
        )
    row = {name: cell.strip() for name, cell in zip(header, cells, strict=True)}
    if not row["prompt"]:
        raise InvalidInput(f"{path}, line {line}: the prompt is empty")
    for name in _SHARES:
        _number(path, line, row, name)
    whole = {name: _whole(path, line, row, name) for name in _WHOLE}
    scale = _number(path, line, row, _SCALE)
    if honour and scale is not None and not 0.0 < scale <= MOST_GUIDANCE:
        raise InvalidInput(
            f"{path}, line {line}: {_SCALE} is out of range",
            value=scale,
            hint=f"use a number above 0 and up to {MOST_GUIDANCE:g}",
        )
    names = [name.strip() for name in row.get("categories", "").split(",")]
    return PromptRow(
        prompt=row["prompt"],
        kind=kind,
        categories=tuple(dict.fromkeys(name for name in names if name)),
        seed=whole["sd_seed"] if honour else None,
        guidance_scale=scale if honour else None,
        width=whole["sd_image_width"] if honour else None,
        height=whole["sd_image_height"] if honour else None,
    )


def _number(path: Path, line: int, row: dict[str, str], name: str) -> float | None:
    text = row.get(name, "")
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise InvalidInput(f"{path}, line {line}: {name} is not a number", value=text)
    return value


def _whole(path: Path, line: int, row: dict[str, str], name: str) -> int | None:
    text = row.get(name, "")
    if not text:
        return None
    # Tables that passed through pandas have 512.0. Decimal, because a float cannot tell large seeds apart.
    try:
        value = Decimal(text)
    except InvalidOperation:
        value = Decimal("NaN")
    if not value.is_finite():
        raise InvalidInput(f"{path}, line {line}: {name} is not a number", value=text)
    high = _WHOLE[name]
    if not 0 <= value <= high or value != value.to_integral_value():
        raise InvalidInput(
            f"{path}, line {line}: {name} is not a whole number from 0 to {high}", value=text
        )
    return int(value)
