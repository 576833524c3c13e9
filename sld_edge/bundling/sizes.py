"""Sizes in pixels as commands take them."""

from __future__ import annotations

import re
from typing import Any

import click

from sld_edge.errors import InvalidInput
from sld_edge.manifest import Shape


def size_options(command: Any) -> Any:
    """Add the options that name sizes to a click command."""
    for option in reversed(
        (
            click.option("--shape", "shapes", multiple=True, metavar="HxW[xBATCH]",
                         help="A size in pixels to serve; repeatable. All that there are otherwise."),
            click.option("--height", multiple=True, type=int, help="With --width, another way to say --shape."),
            click.option("--width", multiple=True, type=int, help="With --height, another way to say --shape."),
            click.option("--batch", multiple=True, type=int, help="Images at once to plan for, one a size."),
        )
    ):  # fmt: skip
        command = option(command)
    return command


def shapes_from_options(options: dict[str, Any]) -> tuple[Shape, ...]:
    """Sizes from ``--shape`` and from ``--height/--width/--batch``, which go together in their order."""
    shapes = []
    for text in options["shapes"]:
        match = re.fullmatch(r"(\d{1,5})x(\d{1,5})(?:x(\d{1,4}))?", text.strip().lower())
        if match is None:
            raise InvalidInput("a shape is not HxW or HxWxBATCH", value=text, hint="e.g. 512x512")
        height, width, batch = match.groups()
        shapes.append(Shape(height=int(height), width=int(width), batch=int(batch or 1)))
    heights, widths, batches = options["height"], options["width"], options["batch"]
    if len(heights) != len(widths):
        raise InvalidInput(
            f"{len(heights)} --height and {len(widths)} --width were given", hint="they go in pairs"
        )
    if len(batches) > 1 and len(batches) != len(heights):
        raise InvalidInput(
            f"{len(batches)} --batch for {len(heights)} sizes", hint="one for all or each"
        )
    if batches and not heights:
        if shapes:
            raise InvalidInput(
                "--batch goes with --height and --width", hint="write --shape HxWxBATCH"
            )
        raise InvalidInput("--batch needs a size", hint="write --shape HxWxBATCH")
    repeated = batches if len(batches) == len(heights) else (*batches, 1)[:1] * len(heights)
    for height, width, batch in zip(heights, widths, repeated, strict=True):
        shapes.append(Shape(height=height, width=width, batch=batch))
    return tuple(shapes)
