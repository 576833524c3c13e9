"""A pipeline that draws tiny-world pictures instead of denoising them: fast, and its rates are known.

A prompt that asks for harm shows it with a chance that depends on the setting; which picture does is fixed by
its seed, so that a stronger setting is unsafe on a subset of a weaker one's pictures.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from PIL import Image

from sld_edge.bench.safety.job import Job
from sld_edge.bench.safety.prompts import PromptRow, tinyworld_prompts
from sld_edge.bench.safety.scorers import TinyworldScorer
from sld_edge.bench.safety.settings import settings_from
from sld_edge.bench.safety.sweep import swept
from sld_edge.bench.tinyworld import Scene, detect, draw
from sld_edge.manifest import Policy
from sld_edge.runtime.notes import CallNote

CONCEPT = "harm, blood"
CHECKPOINT = {"_class_name": "PNDMScheduler"}
CHANCES = {
    "off": 0.9,
    "negative": 0.6,
    "weak": 0.8,
    "medium": 0.5,
    "strong": 0.2,
    "max": 0.0,
    "adaptive": 0.1,
}


class FakePipe:
    """Quacks like ``SafePipeline`` as far as the benchmark looks.

    Args:
        rows: The prompts it knows.
        chances: Share of unsafe pictures under each setting, as ``"medium"`` or, for one number of steps only,
            ``"medium@8"``.
        pause: Seconds that each call takes at least.
        head: Whether its safety head flags unsafe pictures; None for no head.
    """

    def __init__(
        self,
        rows: Sequence[PromptRow],
        *,
        chances: dict[str, float] | None = None,
        pause: float = 0.0,
        head: bool | None = True,
        policy: Policy = Policy(),
    ) -> None:
        self.rows = {row.prompt: row for row in rows}
        self.chances = chances or CHANCES
        self.pause = pause
        self.head = head
        self.calls = 0
        self.seen: list[dict[str, Any]] = []
        safety = SimpleNamespace(concept=CONCEPT, head=head is not None, policy=policy)
        self.bundle = SimpleNamespace(manifest=SimpleNamespace(safety=safety), path=Path("fake"))

    def check(self, prompt: Sequence[str], **arguments: Any) -> None:
        """Everything is welcome."""

    def __call__(self, prompt: Sequence[str], seed: Sequence[int], **arguments: Any) -> Any:
        self.calls += 1
        self.seen.append(arguments)
        time.sleep(self.pause)
        name = "negative" if arguments.get("negative_prompt") else arguments["safety"]
        at_steps = f"{name}@{arguments.get('num_inference_steps')}"
        name = at_steps if at_steps in self.chances else name
        pictures = [self._picture(text, s, name) for text, s in zip(prompt, seed, strict=True)]
        flags = [bool(detect(picture).any()) and bool(self.head) for picture in pictures]
        shown = [np.zeros_like(p) if f else p for p, f in zip(pictures, flags, strict=True)]
        return SimpleNamespace(
            images=[Image.fromarray(picture) for picture in shown],
            nsfw_content_detected=None if self.head is None else flags,
            unsafe_images=[
                Image.fromarray(p) if f else None for p, f in zip(pictures, flags, strict=True)
            ],
            notes=(
                CallNote(
                    kind="prompt cut",
                    text="was too long, its last 3 tokens were cut",
                    about="prompt",
                    index=1,
                    of=len(prompt),
                ),
            ),
        )

    def _picture(self, text: str, seed: int, name: str) -> np.ndarray[Any, np.dtype[np.uint8]]:
        row = self.rows[text]
        unsafe = np.random.default_rng(seed).random() < self.chances[name]
        scene = Scene(
            shape=row.shape,
            colour=row.colour,
            background=row.background,
            harms=row.categories if unsafe else (),
            seed=seed,
        )
        return draw(scene)


def made_job(
    *,
    limit: int = 6,
    images: int = 2,
    batch: int = 3,
    settings: str = "off,negative,medium,max",
    sweep: dict[str, Any] | None = None,
) -> Job:
    """A small job over the tiny world's ambiguous and benign prompts; ``sweep``: steps, schedulers, guidance scales."""
    made = settings_from([settings])
    return Job(
        bundle="ab" * 32,
        bundle_name="fake & <bundle>",
        prompts=tuple(tinyworld_prompts("tinyworld:ambiguous,benign", limit=limit)),
        settings=tuple(swept(made, **sweep, checkpoint=CHECKPOINT) if sweep else made),
        scorers=(TinyworldScorer.identity,),
        height=64,
        width=64,
        images_per_prompt=images,
        batch=batch,
    )
