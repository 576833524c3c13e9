"""What ``sld-generate`` makes: a list of pictures, each with a seed of its own and written when it is done."""

from __future__ import annotations

import json
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from sld_edge.errors import ImageFileError, InvalidInput, SldError, shorten
from sld_edge.runtime.compare_picture import side_by_side
from sld_edge.runtime.noise import Generator, random_seed
from sld_edge.runtime.output import SafeOutput, unsafe_record
from sld_edge.runtime.pipeline import SafePipeline
from sld_edge.runtime.png import PNG_LEVEL, checked_level, read_record, save_new_png

#: What two records must have in common to be of the same picture, whatever ran it and in whatever company.
_IDENTITY = (
    "sld_edge", "prompt", "negative_prompt", "seed", "seed_device", "seed_offset", "width", "height",
    "steps", "scheduler", "scheduler_config", "guidance_scale", "safety",
)  # fmt: skip
#: Bytes; file systems take 255, and an ending and a number follow.
_LONGEST_STEM = 180
#: Prompts are checked so many at once, and a first time with one that has no fault of its own.
_CHECKED_AT_ONCE = 256
_HARMLESS = "a picture"
#: What one run makes; it would take weeks.
_MOST_SHOTS = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Shot:
    """One picture to make."""

    prompt: str
    seed: int


@dataclass(frozen=True, kw_only=True)
class Written:
    """A file that was written, the record in it, and what to say of it besides its name."""

    path: Path
    record: dict[str, Any]
    remark: str = ""


def shots_from(
    prompts: Sequence[str], seeds: Sequence[int], *, images: int, device: str
) -> list[Shot]:
    """The pictures, prompt by prompt.

    A picture's seed depends on nothing but what was asked for it: every prompt's pictures have the first seed, the
    next one, … whatever its place in the list.

    Args:
        prompts: The texts.
        seeds: One to begin with at every prompt, one for each picture, or none: then every prompt begins at random.
        images: Pictures for each prompt.
        device: Whose random numbers the seeds stand for.

    Raises:
        InvalidInput: too few or too many seeds, or one that is out of range.
    """
    if images < 1:
        raise InvalidInput("--images is too small", value=images, hint="use 1 or more")
    total = len(prompts) * images
    if total > _MOST_SHOTS:
        raise InvalidInput(
            "too many pictures in one run", value=total, hint=f"at most {_MOST_SHOTS}"
        )
    if len(seeds) not in (0, 1, total):
        raise InvalidInput(
            f"{len(seeds)} --seed were given for {total} pictures",
            hint="give one to begin with, or one for each picture",
        )
    shots = []
    for index, prompt in enumerate(prompts):
        if len(seeds) == total:
            own = list(seeds[index * images : (index + 1) * images])
        else:
            first = seeds[0] if seeds else random_seed()
            own = list(range(first, first + images))
        shots += [Shot(prompt=prompt, seed=Generator(seed, device).seed) for seed in own]
    return shots


class Pictures:
    """Makes pictures with one pipeline and writes them into one folder.

    Args:
        pipe: The pipeline; its networks need not be loaded yet.
        folder: Where the pictures go.
        call: Arguments of every call but prompts and generators.
        plain: The same without safety, for a comparison; None for none.
        device: Whose random numbers the seeds stand for.
        keep_unsafe: Also write what the safety head withheld.
        png_level: Compression of the files, see :func:`~sld_edge.runtime.png.save_png`.
    """

    def __init__(
        self,
        pipe: SafePipeline,
        folder: Path,
        *,
        call: Mapping[str, Any],
        plain: Mapping[str, Any] | None,
        device: str,
        keep_unsafe: bool,
        png_level: int = PNG_LEVEL,
    ) -> None:
        self._pipe = pipe
        self._folder = folder
        self._call = dict(call)
        self._plain = None if plain is None else {**plain, "safety": "off"}
        self._device = device
        self._keep_unsafe = keep_unsafe
        self._png_level = checked_level(png_level)

    def check(self, shots: Sequence[Shot]) -> dict[str, dict[str, Any]]:
        """Judge every argument of every call, before seconds are spent on loading networks.

        Returns:
            For each prompt the record that its pictures will have, as far as it is known before.

        Raises:
            InvalidInput, PolicyError: naming the prompt where there are several.
        """
        seeds = {shot.prompt: shot.seed for shot in shots}
        prompts = list(seeds)
        if len(prompts) == 1:
            return dict(zip(prompts, self._checked(prompts, seeds), strict=True))
        self._checked([_HARMLESS], {_HARMLESS: 0})  # what is wrong now is wrong for every prompt
        expected: dict[str, dict[str, Any]] = {}
        for start in range(0, len(prompts), _CHECKED_AT_ONCE):
            some = prompts[start : start + _CHECKED_AT_ONCE]
            try:
                records = self._checked(some, seeds)
            except SldError:
                self._name_the_first_bad_one(some, seeds)
                raise
            expected |= dict(zip(some, records, strict=True))
        return expected

    def _checked(self, prompts: Sequence[str], seeds: Mapping[str, int]) -> list[dict[str, Any]]:
        generators = [Generator(seeds[prompt], self._device) for prompt in prompts]
        if self._plain is not None:
            self._pipe.check(list(prompts), **self._plain, generator=generators)
        return self._pipe.expected_records(list(prompts), **self._call, generator=generators)

    def _name_the_first_bad_one(self, prompts: Sequence[str], seeds: Mapping[str, int]) -> None:
        for prompt in prompts:
            try:
                self._checked([prompt], seeds)
            except SldError as error:
                raise type(error)(f"of the prompt {shorten(prompt)}: {error}") from None

    def missing(
        self, shots: Sequence[Shot], expected: Mapping[str, dict[str, Any]], *, any_seed: bool
    ) -> list[Shot]:
        """The pictures that the folder does not hold yet.

        It is asked of the records in its pictures, so that any earlier run counts, however it ended. Nothing else
        has to be kept.

        Args:
            expected: What :meth:`check` returned.
            any_seed: Count a picture of any seed: the seeds are random ones.
        """
        fields = tuple(name for name in _IDENTITY if not (any_seed and name == "seed"))
        there = Counter(
            _identity(record, fields)
            for record in _records_in(self._folder)
            if not record.get("unsafe") and not record.get("comparison")
        )
        left = []
        for shot in shots:
            key = _identity({**expected[shot.prompt], "seed": shot.seed}, fields)
            if there[key]:
                there[key] -= 1
            else:
                left.append(shot)
        return left

    def make(
        self, shots: Sequence[Shot], *, batch: int, progress: bool | None
    ) -> Iterator[Written]:
        """Make the pictures, ``batch`` in one call, and yield every file when it is on disk.

        A picture's own file is the last of those that belong to it: where it is there, nothing of it is missing.

        Raises:
            EngineError: an engine failed.
            ImageFileError: a file cannot be written.
        """
        for start in range(0, len(shots), batch):
            chunk = shots[start : start + batch]
            output = self._made(chunk, self._call, progress)
            off = None if self._plain is None else self._made(chunk, self._plain, progress)
            for index, record in enumerate(output.records()):
                yield from self._written(index, record, output, off)

    def _made(
        self, shots: Sequence[Shot], call: Mapping[str, Any], progress: bool | None
    ) -> SafeOutput:
        # Fresh generators: a run moves them on, and a comparison starts from the same noise again.
        generators = [Generator(shot.seed, self._device) for shot in shots]
        output: SafeOutput = self._pipe(
            [shot.prompt for shot in shots], **call, generator=generators, progress=progress
        )
        return output

    def _written(
        self, index: int, record: dict[str, Any], output: SafeOutput, off: SafeOutput | None
    ) -> Iterator[Written]:
        unsafe = None if output.unsafe_images is None else output.unsafe_images[index]
        if self._keep_unsafe and unsafe is not None:
            yield self._save(unsafe, "-unsafe", unsafe_record(record), "unsafe: was withheld")
        if off is not None:
            picture = _comparison(index, record, output, off)
            yield self._save(picture, "-compare", {**record, "comparison": True})
        remark = "withheld: black" if record["withheld"] else ""
        yield self._save(output.images[index], "", record, remark)

    def _save(
        self, image: Image.Image, suffix: str, record: dict[str, Any], remark: str = ""
    ) -> Written:
        path = save_new_png(
            image, self._folder, _stem(record) + suffix, record, level=self._png_level
        )
        return Written(path=path, record=record, remark=remark)


def _comparison(
    index: int, record: dict[str, Any], safe: SafeOutput, off: SafeOutput
) -> Image.Image:
    used = record["safety"]
    # what the safety head flagged is black in the output; the picture says "withheld" instead
    shown = [
        None if output.record["images"][index]["withheld"] else output.images[index]
        for output in (off, safe)
    ]
    return side_by_side(
        shown,
        ["safety off", f"safety {used['preset'] or 'custom'}"],
        title=record["prompt"],
        footer=f"suppressed: {', '.join(used['concepts'])}",
    )


def _stem(record: dict[str, Any]) -> str:
    """A file's name that says what was asked for, in any script: letters, marks and digits, the rest as hyphens."""
    text = unicodedata.normalize("NFC", record["prompt"])
    words = "".join(c if unicodedata.category(c)[0] in "LMN" else " " for c in text).split()
    stem = "-".join(words)[:60].encode("utf-8")[:_LONGEST_STEM].decode("utf-8", "ignore")
    return stem.strip("-") or "picture"


def _identity(record: Mapping[str, Any], fields: Sequence[str]) -> str:
    """What tells a picture from others, as text: a record that was read has lists where a new one has tuples."""
    same = {name: record.get(name) for name in fields}
    bundle = record.get("bundle")
    same["bundle"] = bundle.get("digest") if isinstance(bundle, dict) else None
    return json.dumps(same, sort_keys=True)


def _records_in(folder: Path) -> Iterator[dict[str, Any]]:
    """The records of a folder's pictures; what is no picture of ours is passed over."""
    for file in sorted(folder.glob("*.png")):
        try:
            record = read_record(file)
        except ImageFileError:
            continue
        if record is not None:
            yield record
