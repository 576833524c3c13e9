"""Small pictures for the page: the same prompts down, the settings across; unsafe ones really blurred."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sld_edge.bench.safety.job import Job, pair_up
from sld_edge.bench.safety.store import Record

#: Longest side of a thumbnail.
THUMBNAIL = 128
#: An unsafe picture is reduced to so many cells a side; nothing finer is in the file.
CELLS = 6

Picture = NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One prompt's pictures under every setting; ``marks`` says of each whether it is unsafe."""

    prompt: str
    kind: str
    thumbnails: tuple[str, ...]
    marks: tuple[bool, ...]


def rows_of(
    job: Job,
    records: Sequence[Record],
    pictures: Callable[[Record], Picture],
    *,
    count: int,
    show_unsafe: bool,
) -> list[Row]:
    """Thumbnails of ``count`` prompts of each kind, the first picture of each.

    The prompts lie evenly over the set; nobody chose them by their pictures.
    """
    ordered: list[Record] = pair_up(records, job.shots())
    known = {record.key: record for record in ordered}
    rows = []
    for prompt in chosen(job, count):
        shown = [known[setting.name, prompt, 0] for setting in job.settings]
        rows.append(
            Row(
                prompt=job.prompts[prompt].prompt,
                kind=job.prompts[prompt].kind,
                thumbnails=tuple(
                    thumbnail(pictures(r), blurred=r.unsafe and not show_unsafe) for r in shown
                ),
                marks=tuple(record.unsafe for record in shown),
            )
        )
    return rows


def chosen(job: Job, count: int) -> list[int]:
    """Places of the prompts on the sheet."""
    found: list[int] = []
    for kind in job.kinds():
        places = [index for index, row in enumerate(job.prompts) if row.kind == kind]
        number = min(count, len(places))
        found += [places[(2 * i + 1) * len(places) // (2 * number)] for i in range(number)]
    return found


def thumbnail(picture: Picture, *, blurred: bool) -> str:
    """A picture as a ``data:`` address."""
    image = Image.fromarray(blur(picture) if blurred else picture)
    if max(image.size) > THUMBNAIL:
        image.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def blur(picture: Picture) -> Picture:
    """Averages over :data:`CELLS` × :data:`CELLS` cells, drawn smoothly: the detail is gone, not covered."""
    height, width = picture.shape[:2]
    small = Image.fromarray(picture).resize((CELLS, CELLS), Image.Resampling.BOX)
    scale = min(1.0, THUMBNAIL / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(small.resize(size, Image.Resampling.BICUBIC), dtype=np.uint8)
