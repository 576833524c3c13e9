"""What is to be made: a fixed list of pictures, each with its own seed, and a digest that names the job."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any, Final

import msgspec

from sld_edge.bench.safety.prompt_row import PromptRow
from sld_edge.bench.safety.settings import Setting

FORMAT: Final = "sld-edge-safety-job"
VERSION: Final = 1
#: What may differ between a measurement and its baseline: the thing that is judged, and how it is run.
_JUDGED: Final = ("bundle", "bundle_name", "engine", "precision", "batch")


class Shot(msgspec.Struct, frozen=True, kw_only=True):
    """One picture: a setting's name, the prompt's place in the job, the picture's number, its seed."""

    setting: str
    prompt: int
    image: int
    seed: int

    @property
    def key(self) -> tuple[str, int, int]:
        """What tells it from every other picture of the job."""
        return self.setting, self.prompt, self.image

    @property
    def file(self) -> str:
        """Its place in the job's folder."""
        return f"images/{self.setting}/{self.prompt:05d}-{self.image:02d}.png"


class Chunk(msgspec.Struct, frozen=True, kw_only=True):
    """Pictures that are made in one call: one setting, size and guidance scale."""

    setting: Setting
    shots: tuple[Shot, ...]
    height: int
    width: int
    guidance_scale: float


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """A measurement as a recipe. Equal jobs make equal pictures on one machine.

    ``batch`` belongs to it because the last bits of a network's result depend on how many rows it computes
    at once; a chunk is therefore always made whole, and always of the same pictures.
    """

    bundle: str
    bundle_name: str
    prompts: tuple[PromptRow, ...]
    settings: tuple[Setting, ...]
    scorers: tuple[str, ...]
    height: int
    width: int
    steps: int = 50
    guidance_scale: float = 7.5
    scheduler: str = ""
    images_per_prompt: int = 1
    seed: int = 0
    csv_settings: str = "ignore"
    batch: int = 1
    engine: str = ""
    precision: str = "fp32"

    @property
    def digest(self) -> str:
        """sha256 (hex) of everything."""
        return _digest(msgspec.to_builtins(self))

    @property
    def question(self) -> str:
        """sha256 (hex) of everything but the bundle and how it is run: equal where rates may be compared."""
        return _digest(question_of(self))

    @property
    def total(self) -> int:
        """Number of pictures."""
        return len(self.prompts) * len(self.settings) * self.images_per_prompt

    def shots(self) -> list[Shot]:
        """Every picture in the order of the tables: by setting, prompt, number."""
        seeds = self._seeds()
        return [
            Shot(setting=setting.name, prompt=prompt, image=image, seed=seeds[prompt, image])
            for setting in self.settings
            for prompt in range(len(self.prompts))
            for image in range(self.images_per_prompt)
        ]

    def chunks(self) -> Iterator[Chunk]:
        """Every call, in the order of making.

        Settings take turns over the same prompts, so that a run cut short has all of them and a machine that
        slows down slows all of them. Sizes come one after the other: changing them reloads networks.
        """
        seeds = self._seeds()
        places = [
            (prompt, image)
            for prompt in sorted(range(len(self.prompts)), key=lambda p: self._call_settings(p)[:2])
            for image in range(self.images_per_prompt)
        ]
        for (height, width, scale), group in groupby(
            places, key=lambda place: self._call_settings(place[0])
        ):
            members = list(group)
            for start in range(0, len(members), self.batch):
                for setting in self.settings:
                    yield Chunk(
                        setting=setting,
                        shots=tuple(
                            Shot(setting=setting.name, prompt=p, image=i, seed=seeds[p, i])
                            for p, i in members[start : start + self.batch]
                        ),
                        height=height,
                        width=width,
                        guidance_scale=setting.guidance_scale or scale,
                    )

    def kinds(self) -> list[str]:
        """The kinds of prompts, in their order."""
        return list(dict.fromkeys(row.kind for row in self.prompts))

    def off_of(self, setting: Setting) -> Setting | None:
        """Safety off in the same run (steps, scheduler, guidance scale); None where that is not measured."""
        return next((one for one in self.settings if one.is_off and one.run == setting.run), None)

    def _call_settings(self, prompt: int) -> tuple[int, int, float]:
        row = self.prompts[prompt]
        return (
            row.height or self.height,
            row.width or self.width,
            self.guidance_scale if row.guidance_scale is None else row.guidance_scale,
        )

    def _seeds(self) -> dict[tuple[int, int], int]:
        """A seed for each prompt and number, the same under every setting.

        The first picture has its row's own seed where there is one; all others are drawn from a hash, so
        that neither the number of pictures nor the order of making changes any of them.
        """
        return {
            (prompt, image): (
                row.seed
                if row.seed is not None and image == 0
                else _seed(self.seed, prompt, row.prompt, image)
            )
            for prompt, row in enumerate(self.prompts)
            for image in range(self.images_per_prompt)
        }


def question_of(job: Job) -> dict[str, Any]:
    """What was asked, as plain data."""
    tree: dict[str, Any] = msgspec.to_builtins(job)
    return {key: value for key, value in tree.items() if key not in _JUDGED}


def differences(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """Names of what differs between two jobs as plain data, with the values where they are short."""
    lines = []
    for key in sorted(one.keys() | other.keys()):
        left, right = one.get(key), other.get(key)
        if left != right:
            short = all(isinstance(value, (str, int, float)) for value in (left, right))
            lines.append(f"{key} ({left} there, {right} here)" if short else key)
    return lines


def pair_up(records: Sequence[Any], shots: Sequence[Shot]) -> list[Any]:
    """Records in the order of shots; a KeyError names one that is missing."""
    known = {(record.setting, record.prompt, record.image): record for record in records}
    return [known[shot.key] for shot in shots]


def _seed(base: int, prompt: int, text: str, image: int) -> int:
    words = f"{base}\0{prompt}\0{image}\0{text}".encode()
    return int.from_bytes(hashlib.sha256(words).digest()[:4], "big") >> 1


def _digest(tree: Any) -> str:
    return hashlib.sha256(msgspec.json.encode(tree, order="sorted")).hexdigest()
