"""Prompt sets: the tiny world's own, a template over groups, or a CSV (see :mod:`.csv_prompts`)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from sld_edge.bench.safety.prompt_row import PromptRow as PromptRow
from sld_edge.errors import InvalidInput

BENIGN: Final = "benign"
BIAS: Final = "bias"
#: How many of each kind the tiny world brings when no limit is given.
TINYWORLD_COUNTS: Final[dict[str, int]] = {
    "ambiguous": 120,
    "explicit": 30,
    BENIGN: 120,
    "concept": 30,
}
#: What a source brings that names no kind.
_UNNAMED: Final = ("ambiguous", "explicit", BENIGN)
_TINYWORLD: Final = "tinyworld"
_HOLE: Final = "{group}"
#: Prompts of one kind that the tiny world makes at most; a picture takes a second or so.
_MOST: Final = 100_000


def prompts_from(
    source: str, *, kind: str = "", limit: int | None = None, honour: bool = False
) -> list[PromptRow]:
    """The rows of one source.

    Args:
        source: ``"tinyworld"``, ``"tinyworld:ambiguous,benign"``, or a CSV file with I2P's columns.
        kind: What a CSV's rows are called; the file's name otherwise.
        limit: At most so many of each kind. The tiny world makes exactly so many.
        honour: Take seeds, sizes and guidance scales from the CSV.

    Raises:
        InvalidInput: no such set, or a fault in the file, with its line.
    """
    if limit is not None and limit < 1:
        raise InvalidInput("the limit of prompts is below 1", value=limit)
    if is_tinyworld(source):
        return tinyworld_prompts(source, limit=limit)
    from sld_edge.bench.safety.csv_prompts import rows_from_csv

    path = Path(source)
    if not path.suffix and not path.exists():
        raise InvalidInput(
            "no such prompt set or file", value=source, hint="use tinyworld or a CSV file"
        )
    return rows_from_csv(path, kind=kind or path.stem, honour=honour)[:limit]


def is_tinyworld(source: str) -> bool:
    """Whether a source names the tiny world's prompts."""
    return source == _TINYWORLD or source.startswith(f"{_TINYWORLD}:")


def tinyworld_prompts(source: str, *, limit: int | None = None) -> list[PromptRow]:
    """The tiny world's prompts of the kinds that a source names; when it names none, all but those of the concept.

    ``tinyworld:ambiguous=500,concept=40,benign`` says how many of a kind; the limit goes for the others.
    """
    from sld_edge.bench.tinyworld import prompts

    makers = {
        "ambiguous": prompts.ambiguous,
        "explicit": prompts.explicit,
        BENIGN: prompts.benign,
        "concept": prompts.concept,
    }
    named = source.partition(":")[2]
    counts: dict[str, int] = {}
    for word in named.split(",") if named else _UNNAMED:
        kind, equals, number = (part.strip() for part in word.partition("="))
        if kind not in makers:
            raise InvalidInput(
                "the tiny world has no such prompts", value=kind, hint=f"use {', '.join(makers)}"
            )
        if not equals:
            number = str(limit or TINYWORLD_COUNTS[kind])
        if not (number.isdecimal() and 0 < int(number[:9]) <= _MOST):
            raise InvalidInput(
                f"the number of {kind} prompts is no whole one that can be made",
                value=number,
                hint=f"use 1 to {_MOST}",
            )
        counts[kind] = int(number)
    return [
        PromptRow(
            prompt=made.prompt,
            kind=made.kind,
            categories=made.categories,
            seed=made.seed,
            shape=made.shape,
            colour=made.colour,
            background=made.background,
        )
        for kind, count in counts.items()
        for made in makers[kind](count)
    ]


def bias_prompts(templates: Sequence[str], groups: str) -> list[PromptRow]:
    """One row for each template and group; the group is the row's category (the paper, section 2).

    Raises:
        InvalidInput: a template without ``{group}``, no group, or one twice.
    """
    names = [name.strip() for name in groups.split(",")]
    if not groups.strip() or not all(names):
        raise InvalidInput(
            "there are no groups, or an empty one", value=groups, hint='use --groups "a,b,c"'
        )
    if len(set(names)) != len(names):
        raise InvalidInput("a group is named twice", value=groups)
    for template in templates:
        if _HOLE not in template:
            raise InvalidInput(
                "the template has no place for the group",
                value=template,
                hint=f'write {_HOLE}, as in "{_HOLE} body"',
            )
    return [
        PromptRow(
            prompt=" ".join(template.replace(_HOLE, name).split()), kind=BIAS, categories=(name,)
        )
        for template in templates
        for name in names
    ]
