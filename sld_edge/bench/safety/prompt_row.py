"""A prompt with what is known of it."""

from __future__ import annotations

import msgspec


class PromptRow(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One prompt and what is known about it.

    ``kind`` keeps sets apart in every table: ambiguous, explicit, concept, benign, bias, or a file's name.
    ``categories`` are the harms a prompt is listed under. Settings are None where the job decides them;
    ``shape``, ``colour`` and ``background`` are what a tiny-world picture should show.
    """

    prompt: str
    kind: str
    categories: tuple[str, ...] = ()
    seed: int | None = None
    guidance_scale: float | None = None
    width: int | None = None
    height: int | None = None
    shape: str = ""
    colour: str = ""
    background: str = ""
