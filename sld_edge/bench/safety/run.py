"""Making and judging the pictures of a job, in one process."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from sld_edge.bench.originals import Picture, originals, require_originals
from sld_edge.bench.safety.job import Chunk, Job, Shot
from sld_edge.bench.safety.prompts import PromptRow
from sld_edge.bench.safety.scorers import Item, Scorer, judge
from sld_edge.bench.safety.settings import Setting
from sld_edge.bench.safety.store import Record, Store
from sld_edge.errors import SldError
from sld_edge.runtime.notes import CallNote

#: Told after each call how many pictures it made.
Progress = Callable[[int], None]
_CHECKED_AT_ONCE = 256


def check_job(job: Job, pipe: Any, scorers: Sequence[Scorer]) -> None:
    """Everything that can be known to go wrong, before a network is loaded.

    Raises:
        InvalidInput, PolicyError: a setting, a prompt or a size that the bundle does not take; a policy that
            withholds the pictures which are to be judged; a scorer that cannot judge them.
    """
    safety = pipe.bundle.manifest.safety
    require_originals(safety)
    sizes = {(chunk.height, chunk.width) for chunk in job.chunks()}
    for scorer in scorers:
        for height, width in sorted(sizes):
            scorer.check(height=height, width=width, has_head=safety.head)
    for setting in job.settings:
        texts: dict[tuple[int, int, float], list[str]] = {}
        for chunk in job.chunks():
            if chunk.setting is setting:
                place = (chunk.height, chunk.width, chunk.guidance_scale)
                texts.setdefault(place, []).extend(
                    job.prompts[s.prompt].prompt for s in chunk.shots
                )
        for (height, width, scale), prompts in texts.items():
            unique = list(dict.fromkeys(prompts))
            for start in range(0, len(unique), _CHECKED_AT_ONCE):
                try:
                    pipe.check(
                        unique[start : start + _CHECKED_AT_ONCE],
                        height=height,
                        width=width,
                        guidance_scale=scale,
                        **_run_of(job, setting),
                        **setting.arguments(safety.concept),
                    )
                except SldError as error:
                    raise type(error)(f"setting {setting.name}: {error}") from None


def missing(job: Job, store: Store) -> Iterator[Chunk]:
    """The chunks of which a picture is not finished yet; they are made whole, see :class:`Job`."""
    for chunk in job.chunks():
        if any(shot.key not in store.records for shot in chunk.shots):
            yield chunk


def run_here(
    job: Job, store: Store, pipe: Any, scorers: Sequence[Scorer], progress: Progress
) -> None:
    """Make what is missing, with one pipeline."""
    for chunk in missing(job, store):
        before = len(store.records)
        store.add(*make(job, chunk, pipe, scorers))
        progress(len(store.records) - before)


def make(
    job: Job, chunk: Chunk, pipe: Any, scorers: Sequence[Scorer]
) -> tuple[list[Picture], list[Record]]:
    """Make and judge one chunk. Each picture has a generator of its own, seeded by its shot."""
    rows = [job.prompts[shot.prompt] for shot in chunk.shots]
    with _notes_kept_in_the_record():
        start = time.perf_counter()
        output = pipe(
            [row.prompt for row in rows],
            seed=[shot.seed for shot in chunk.shots],
            height=chunk.height,
            width=chunk.width,
            guidance_scale=chunk.guidance_scale,
            progress=False,
            **_run_of(job, chunk.setting),
            **chunk.setting.arguments(pipe.bundle.manifest.safety.concept),
        )
        seconds = (time.perf_counter() - start) / len(rows)
    pictures = originals(output)
    flags: list[bool | None] = list(output.nsfw_content_detected or [None] * len(rows))
    items = [
        Item(row=row, seed=shot.seed, flagged=flag)
        for row, shot, flag in zip(rows, chunk.shots, flags, strict=True)
    ]
    verdicts = judge(scorers, np.stack(pictures), items)
    return pictures, [
        _record(shot, flag, verdict, right, seconds, [n for n in output.notes if n.concerns(index)])
        for index, (shot, flag, verdict, right) in enumerate(
            zip(chunk.shots, flags, verdicts, _correct(rows, pictures), strict=True)
        )
    ]


def _record(
    shot: Shot,
    flag: bool | None,
    verdict: dict[str, Any],
    correct: bool | None,
    seconds: float,
    notes: Sequence[CallNote],
) -> Record:
    return Record(
        setting=shot.setting,
        prompt=shot.prompt,
        image=shot.image,
        seed=shot.seed,
        file=shot.file,
        flagged=None if flag is None else bool(flag),
        correct=correct,
        seconds=round(seconds, 6),
        notes=tuple(note.alone for note in notes),
        note_kinds=tuple(note.kind for note in notes),
        **verdict,
    )


def _correct(rows: Sequence[PromptRow], pictures: Sequence[Picture]) -> list[bool | None]:
    """Whether tiny-world pictures show the object and background that were asked for; None for others."""
    asked = [row.shape != "" for row in rows]
    if not any(asked):
        return [None] * len(rows)
    from sld_edge.bench.tinyworld.detectors import read
    from sld_edge.bench.tinyworld.palette import SIZE

    if pictures[0].shape != (SIZE, SIZE, 3):
        return [None] * len(rows)
    return [
        reading.matches(shape=row.shape, colour=row.colour, background=row.background)
        if here
        else None
        for row, here, reading in zip(rows, asked, read(np.stack(pictures)), strict=True)
    ]


def _run_of(job: Job, setting: Setting) -> dict[str, Any]:
    return {
        "num_inference_steps": setting.steps or job.steps,
        "scheduler": setting.scheduler or job.scheduler or None,
    }


@contextmanager
def _notes_kept_in_the_record() -> Iterator[None]:
    """A pipeline logs its notes at every call; here they are in every picture's line instead."""
    logger = logging.getLogger("sld_edge")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
