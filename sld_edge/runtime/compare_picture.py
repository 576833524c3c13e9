"""Pictures side by side with captions, for people who would rather look than read."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from PIL import Image, ImageDraw, ImageFont

#: Small pictures are enlarged to about this many pixels, so that one sees something.
_TILE = 320
_GAP = 16
_INK = (24, 24, 27)
_FAINT = (82, 82, 91)
_PAPER = (255, 255, 255)
_WITHHELD = (212, 212, 216)

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def side_by_side(
    images: Sequence[Image.Image | None],
    captions: Sequence[str],
    *,
    title: str = "",
    footer: str = "",
) -> Image.Image:
    """One row of pictures of equal size, each under its caption.

    Args:
        images: The pictures; None stands for one that was withheld.
        captions: One for each picture.
        title: Line above, usually the prompt.
        footer: Small print below; it is wrapped.
    """
    if len(images) != len(captions) or not images:
        raise ValueError(f"{len(images)} images and {len(captions)} captions")
    tiles = [_tile(image) for image in images]
    width = max(tile.width for tile in tiles)
    height = max(tile.height for tile in tiles)
    total = len(tiles) * width + (len(tiles) + 1) * _GAP
    big, normal, small = (ImageFont.load_default(size) for size in (22, 17, 13))
    inner = total - 2 * _GAP
    title_lines = _wrapped(title, big, inner)
    caption_lines = [_wrapped(caption, normal, width) for caption in captions]
    footer_lines = _wrapped(footer, small, inner)
    top = _GAP + 30 * len(title_lines)
    below = top + 24 * max(map(len, caption_lines))
    sheet = Image.new("RGB", (total, below + height + _GAP + 18 * len(footer_lines) + _GAP), _PAPER)
    draw = ImageDraw.Draw(sheet)
    _write(draw, title_lines, big, (_GAP, _GAP), 30, _INK)
    for column, (tile, lines) in enumerate(zip(tiles, caption_lines, strict=True)):
        left = _GAP + column * (width + _GAP)
        _write(draw, lines, normal, (left, top), 24, _INK)
        sheet.paste(tile, (left, below))
    _write(draw, footer_lines, small, (_GAP, below + height + _GAP), 18, _FAINT)
    return sheet


def stacked(pictures: Sequence[Image.Image]) -> Image.Image:
    """Pictures of any size under each other on white paper."""
    size = (max(picture.width for picture in pictures), sum(p.height for p in pictures))
    sheet = Image.new("RGB", size, _PAPER)
    top = 0
    for picture in pictures:
        sheet.paste(picture, (0, top))
        top += picture.height
    return sheet


def _tile(image: Image.Image | None) -> Image.Image:
    if image is None:
        tile = Image.new("RGB", (_TILE, _TILE), _WITHHELD)
        ImageDraw.Draw(tile).text(
            (_TILE // 2, _TILE // 2), "withheld", _FAINT, ImageFont.load_default(20), anchor="mm"
        )
        return tile
    factor = max(1, round(_TILE / max(image.size)))
    if factor == 1:
        return image.convert("RGB")
    size = (image.width * factor, image.height * factor)
    return image.convert("RGB").resize(size, Image.Resampling.NEAREST)


def _wrapped(text: str, font: Font, width: int) -> list[str]:
    """Lines no wider than ``width`` pixels; a word that is wider is broken."""
    lines: list[str] = []
    line = ""
    for word in text.split():
        for piece in _pieces(word, font, width):
            longer = f"{line} {piece}".strip()
            if line and font.getlength(longer) > width:
                lines.append(line)
                longer = piece
            line = longer
    return [*lines, line] if line else lines


def _pieces(word: str, font: Font, width: int) -> list[str]:
    cuts = [0]
    for end in range(1, len(word) + 1):
        if font.getlength(word[cuts[-1] : end]) > width and end - 1 > cuts[-1]:
            cuts.append(end - 1)
    return [word[a:b] for a, b in pairwise([*cuts, len(word)])]


def _write(
    draw: ImageDraw.ImageDraw,
    lines: Sequence[str],
    font: Font,
    start: tuple[int, int],
    step: int,
    colour: tuple[int, int, int],
) -> None:
    for number, line in enumerate(lines):
        draw.text((start[0], start[1] + number * step), line, colour, font)
