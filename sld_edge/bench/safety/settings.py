"""What is compared: safety off, the negative prompt, the presets, or settings of one's own."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final, get_args

import msgspec

from sld_edge.bundle import Bundle
from sld_edge.errors import InvalidInput
from sld_edge.manifest import PresetName
from sld_edge.runtime.call import knows_adaptive
from sld_edge.runtime.safety import ADAPTIVE

OFF: Final = "off"
NEGATIVE: Final = "negative"
PRESETS: Final = (*get_args(PresetName), ADAPTIVE)
DEFAULT: Final = (OFF, NEGATIVE, *PRESETS)
#: Between a setting's strength and the run it is measured in; no setting of one's own can hold it.
_AT: Final = "@"
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,39}")


class Setting(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One column of the table.

    ``safety`` is a preset's name or ``"off"``, empty where ``numbers`` say it all. ``concept`` is the safety
    concept, empty for the bundle's own; with ``negative_prompt`` it is handed over as the negative prompt,
    which is the paper's baseline: classifier-free guidance away from the same words, without SLD.
    ``steps``, ``scheduler`` and ``guidance_scale`` replace the job's where they are not 0 or empty (a sweep).
    """

    name: str
    safety: str = ""
    numbers: dict[str, float] = {}
    concept: str = ""
    negative_prompt: bool = False
    steps: int = 0
    scheduler: str = ""
    guidance_scale: float = 0.0

    @property
    def strength(self) -> str:
        """Its name without the run that a sweep measures it in."""
        return self.name.partition(_AT)[0]

    @property
    def run(self) -> tuple[int, str, float]:
        """Steps, scheduler and guidance scale, where they replace the job's."""
        return self.steps, self.scheduler, self.guidance_scale

    @property
    def is_off(self) -> bool:
        """Whether nothing steers away from the concept, not even a negative prompt."""
        return self.safety == OFF and not self.negative_prompt

    @property
    def is_sld(self) -> bool:
        """Whether Safe Latent Diffusion acts; the gate is about these."""
        return self.safety != OFF

    def at(self, *, steps: int, scheduler: str, guidance_scale: float) -> Setting:
        """The same strength in a run of its own; the scheduler is the checkpoint's where it is empty."""
        words = [*([scheduler] if scheduler else []), str(steps), f"{guidance_scale:g}"]
        return msgspec.structs.replace(
            self,
            name=f"{self.name}{_AT}{'-'.join(words)}",
            steps=steps,
            scheduler=scheduler,
            guidance_scale=guidance_scale,
        )

    def arguments(self, bundle_concept: str) -> dict[str, Any]:
        """A pipeline's arguments."""
        if not self.is_sld:
            words = self.concept or bundle_concept
            return {"safety": OFF, **({"negative_prompt": words} if self.negative_prompt else {})}
        given: dict[str, Any] = {"safety": self.safety} if self.safety else dict(self.numbers)
        if "sld_warmup_steps" in given:  # JSON does not tell 5 from 5.0
            given["sld_warmup_steps"] = int(given["sld_warmup_steps"])
        if self.concept:
            given["safety_concept"] = self.concept
        return given


def default_settings(bundle: Bundle) -> tuple[str, ...]:
    """Names of all settings that a bundle takes."""
    if not knows_adaptive(bundle):
        return tuple(name for name in DEFAULT if name != ADAPTIVE)
    return DEFAULT


def settings_from(words: Iterable[str], *, concept: str = "") -> list[Setting]:
    """Read ``"off,negative,max"`` and ``"mine:sld_guidance_scale=3000,sld_warmup_steps=5"``, in order.

    Args:
        words: One text for each time the option was given; names may be joined with commas.
        concept: Suppress this instead of the bundle's concept.

    Raises:
        InvalidInput: an unknown name or number, or a name twice.
    """
    found: list[Setting] = []
    for word in words:
        if ":" in word:
            found.append(_custom(word, concept))
        else:
            found.extend(_named(name.strip(), concept) for name in word.split(","))
    names = [setting.name.lower() for setting in found]
    if twice := next((name for name in names if names.count(name) > 1), ""):
        raise InvalidInput("a setting is named twice", value=twice)
    if not found:
        raise InvalidInput("there is no setting to measure", hint=f"use {','.join(DEFAULT)}")
    return found


def _named(name: str, concept: str) -> Setting:
    if name == OFF:
        return Setting(name=OFF, safety=OFF)
    if name == NEGATIVE:
        return Setting(name=NEGATIVE, safety=OFF, concept=concept, negative_prompt=True)
    if name in PRESETS:
        return Setting(name=name, safety=name, concept=concept)
    raise InvalidInput(
        "unknown setting",
        value=name,
        hint=f"use {', '.join(DEFAULT)}, or name:sld_guidance_scale=3000,sld_warmup_steps=5",
    )


def _custom(word: str, concept: str) -> Setting:
    from sld_edge.runtime.safety import SETTING_NAMES

    name, _, rest = (part.strip() for part in word.partition(":"))
    if not _NAME.fullmatch(name) or name in DEFAULT:
        raise InvalidInput(
            "a setting of one's own needs a name of its own",
            value=name,
            hint="letters, digits, dots, hyphens and underscores, up to 40",
        )
    numbers: dict[str, float] = {}
    for pair in rest.split(","):
        key, _, text = (part.strip() for part in pair.partition("="))
        if key not in SETTING_NAMES or key in numbers:
            raise InvalidInput(
                f"setting {name} has an unknown number, or one twice",
                value=pair,
                hint=f"use {', '.join(SETTING_NAMES)}",
            )
        numbers[key] = _number(name, key, text)
    return Setting(name=name, numbers=numbers, concept=concept)


def _number(name: str, key: str, text: str) -> float:
    try:
        return int(text) if key == "sld_warmup_steps" else float(text)
    except ValueError:
        raise InvalidInput(f"setting {name}: {key} is not a number", value=text) from None
