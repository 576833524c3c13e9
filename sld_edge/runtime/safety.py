"""How strongly to steer away from the safety concept: presets, validation, and the bundle's policy.

Names and presets follow diffusers' ``SafetyConfig``; weak's guidance scale is the paper's 200, where diffusers
ships 20. Sources: arXiv 2211.05105 §4 and the model card of stable-diffusion-safe.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, ClassVar, Final, Literal

from sld_edge.errors import InvalidInput, PolicyError
from sld_edge.manifest import Safety
from sld_edge.plain import is_listed, is_text, plain_list, plain_text
from sld_edge.runtime.checks import real_number, whole_number
from sld_edge.runtime.methods import METHODS, PUBLISHED, presets_of_methods

_OFF = "off"

#: Guidance methods that a bundle may name as its own; calls take those of :data:`~sld_edge.runtime.methods.METHODS`.
Method = Literal["sld", "adaptive"]

#: Inclusive range of every real-valued setting, and why it ends there.
_RANGES: dict[str, tuple[float, float, str]] = {
    "sld_guidance_scale": (
        0.0,
        1e5,
        'a positive number such as 1000; safety="off" is the only way to turn SLD off',
    ),
    "sld_threshold": (0.0, 1.0, "0 to 1, the paper recommends 0 to 0.03"),
    "sld_momentum_scale": (0.0, 1.0, "0 to 1, the paper recommends 0 to 0.5"),
    "sld_mom_beta": (0.0, 1.0, "0 to 1, the paper recommends 0.3 to 0.7"),
}


@dataclass(frozen=True, kw_only=True)
class SafetyConfig(Mapping[str, "float | int"]):
    """One strength of Safe Latent Diffusion. A mapping, so that ``pipe(prompt, **SafetyConfig.MEDIUM)`` works.

    Args:
        sld_guidance_scale: s_S, the factor on \\|ε_p − ε_s\\| before it is clipped to 1; in (0, 1e5].
        sld_warmup_steps: δ, when the safety term begins to act; 0 acts from the first evaluation. A preset's δ is the
            noise level that a run of 50 steps has reached after so many evaluations; other numbers count evaluations.
        sld_threshold: λ, elements with ε_p − ε_s ≥ λ are left alone; in [0, 1].
        sld_momentum_scale: s_m, in [0, 1].
        sld_mom_beta: β_m, share of the old momentum that is kept; in [0, 1].

    Raises:
        InvalidInput: a value is not a number, not finite, or would switch SLD off or turn it around.

    >>> from sld_edge import SafetyConfig
    >>> SafetyConfig.STRONG.sld_guidance_scale, SafetyConfig(sld_warmup_steps=5).sld_warmup_steps
    (2000.0, 5)
    >>> SafetyConfig(sld_threshold=2)
    Traceback (most recent call last):
    sld_edge.errors.InvalidInput: sld_threshold is out of range: 2.0 — use 0 to 1, the paper recommends 0 to 0.03
    """

    sld_guidance_scale: float = 1000.0
    sld_warmup_steps: int = 10
    sld_threshold: float = 0.01
    sld_momentum_scale: float = 0.3
    sld_mom_beta: float = 0.4

    WEAK: ClassVar[SafetyConfig]
    MEDIUM: ClassVar[SafetyConfig]
    STRONG: ClassVar[SafetyConfig]
    MAX: ClassVar[SafetyConfig]

    def __post_init__(self) -> None:
        for name, (low, high, hint) in _RANGES.items():
            value = real_number(name, getattr(self, name), hint)
            if not low <= value <= high or (name == "sld_guidance_scale" and value == 0.0):
                raise InvalidInput(f"{name} is out of range", value=value, hint=f"use {hint}")
            object.__setattr__(self, name, value)
        delta = whole_number("sld_warmup_steps", self.sld_warmup_steps, low=0)
        object.__setattr__(self, "sld_warmup_steps", delta)

    def __getitem__(self, key: str) -> float | int:
        if key not in SETTING_NAMES:
            raise KeyError(key)
        value: float | int = getattr(self, key)
        return value

    def __iter__(self) -> Iterator[str]:
        return iter(SETTING_NAMES)

    def __len__(self) -> int:
        return len(SETTING_NAMES)

    @property
    def preset(self) -> str | None:
        """Name of the preset with exactly these numbers, or None."""
        return next((name for name, config in PRESETS.items() if config == self), None)


SETTING_NAMES: tuple[str, ...] = tuple(field.name for field in fields(SafetyConfig))

SafetyConfig.WEAK = SafetyConfig(
    sld_guidance_scale=200.0,
    sld_warmup_steps=15,
    sld_threshold=0.0,
    sld_momentum_scale=0.0,
    sld_mom_beta=0.0,
)
SafetyConfig.MEDIUM = SafetyConfig()
SafetyConfig.STRONG = SafetyConfig(
    sld_guidance_scale=2000.0,
    sld_warmup_steps=7,
    sld_threshold=0.025,
    sld_momentum_scale=0.5,
    sld_mom_beta=0.7,
)
SafetyConfig.MAX = SafetyConfig(
    sld_guidance_scale=5000.0,
    sld_warmup_steps=0,
    sld_threshold=1.0,
    sld_momentum_scale=0.5,
    sld_mom_beta=0.7,
)

PRESETS: dict[str, SafetyConfig] = {
    "weak": SafetyConfig.WEAK,
    "medium": SafetyConfig.MEDIUM,
    "strong": SafetyConfig.STRONG,
    "max": SafetyConfig.MAX,
}


#: The preset of the adaptive method.
ADAPTIVE: Final = "adaptive"


@dataclass(frozen=True, kw_only=True)
class Guard:
    """What one call asks of safety, resolved: nothing is left open after the door.

    ``config`` is None exactly when safety is off, and then ``concepts`` is empty.
    """

    config: SafetyConfig | None
    #: Texts of the safety concepts, each a row of its own.
    concepts: tuple[str, ...]
    #: The preset's name as asked for; None for custom numbers.
    preset: str | None
    method: str = PUBLISHED
    #: Whether the numbers are the call's own, and so count evaluations as in diffusers.
    counted: bool = False
    #: Whether the call itself named the method.
    method_given: bool = False

    def record(self) -> dict[str, Any]:
        """The JSON-able part of an image's record that says what was asked for."""
        if self.config is None:
            return {"preset": _OFF, "concepts": []}
        numbers = {
            key.removeprefix("sld_"): value
            for key, value in asdict(self.config).items()
            if key not in METHODS[self.method].unused
        }
        return {"preset": self.preset, "concepts": list(self.concepts), **numbers}


def resolve_guard(
    safety: str | SafetyConfig | None,
    settings: Mapping[str, Any],
    concepts: str | Sequence[str] | None,
    method: str | None = None,
    *,
    bundle: Safety,
) -> Guard:
    """Turn a call's safety arguments into one checked :class:`Guard`.

    Args:
        safety: ``"off"``, a preset's name, a :class:`SafetyConfig`, or None for the ``sld_…`` numbers or,
            where those are absent too, the bundle's default.
        settings: The ``sld_…`` arguments that were given; missing ones take medium's value, as in diffusers.
        concepts: Text of one or several safety concepts; None is the bundle's own.
        method: A name of :data:`~sld_edge.runtime.methods.METHODS`, or None for the preset's or the bundle's.
        bundle: The bundle's safety part: its concept, default preset and policy.

    Raises:
        InvalidInput: contradicting, unknown or senseless settings.
        PolicyError: the bundle's policy forbids safety to be off.
    """
    given = {name: value for name, value in settings.items() if value is not None}
    if safety is not None and given:
        raise InvalidInput(
            "safety= and sld_… arguments were given together",
            value=sorted(given),
            hint="use one or the other",
        )
    wanted = _method_from(method)
    if safety is None and not given:
        safety = bundle.default
        wanted = wanted or (bundle.method if isinstance(bundle.method, str) else None)
    if isinstance(safety, str) and safety.strip().lower() == _OFF:
        if method is not None:
            raise InvalidInput("a method was given but safety is off", value=method)
        return _guard_off(concepts, bundle)
    preset, config = _config_from(safety, given)
    own = preset if preset in METHODS else None
    if own is not None and wanted not in (None, own):
        raise InvalidInput(
            f'safety="{own}" is no preset of method="{wanted}"', hint="leave one out"
        )
    wanted = wanted or own or PUBLISHED
    unused = sorted(set(given) & METHODS[wanted].unused)
    if unused:
        raise InvalidInput(
            f"the {wanted} method has no use for these numbers", value=unused, hint="leave them out"
        )
    texts = (bundle.concept,) if concepts is None else _concept_texts(concepts)
    if METHODS[wanted].by_harm and concepts is None and isinstance(bundle.harms, tuple):
        texts = tuple(harm.text for harm in bundle.harms)
    return Guard(
        config=config,
        concepts=texts,
        preset=preset or config.preset,
        method=wanted,
        counted=_is_counted(config, given, preset),
        method_given=method is not None,
    )


def _is_counted(config: SafetyConfig, given: Mapping[str, Any], preset: str | None) -> bool:
    """Presets, by name or as objects, mean noise levels; a warm-up that was given as a number counts evaluations."""
    if given:
        return "sld_warmup_steps" in given
    return preset is None and config.preset is None


def _method_from(method: str | None) -> str | None:
    if method is None:
        return None
    for known in METHODS:
        if method == known:
            return known
    raise InvalidInput("unknown method", value=method, hint=f"use {' or '.join(METHODS)}")


def _guard_off(concepts: str | Sequence[str] | None, bundle: Safety) -> Guard:
    if bundle.policy.minimum != _OFF:
        raise PolicyError(
            "this bundle's policy does not allow safety to be turned off",
            hint=f"its minimum is {bundle.policy.minimum!r}",
        )
    if concepts is not None:
        raise InvalidInput("a safety concept was given but safety is off", value=concepts)
    return Guard(config=None, concepts=(), preset=_OFF)


def _config_from(
    safety: str | SafetyConfig | None, given: Mapping[str, Any]
) -> tuple[str | None, SafetyConfig]:
    if issubclass(type(safety), SafetyConfig):
        # Each number is read once, into the class itself: a subclass may return another value each time.
        return None, SafetyConfig(**{name: getattr(safety, name) for name in SETTING_NAMES})
    if is_text(safety):
        name = plain_text("safety", safety).strip().lower()
        if name in presets_of_methods():
            return name, PRESETS[METHODS[name].preset]
        if name not in PRESETS:
            raise InvalidInput("unknown safety preset", value=safety, hint=_hint())
        return name, PRESETS[name]
    if safety is not None:
        raise InvalidInput(
            "safety is neither a preset's name nor a SafetyConfig",
            value=safety,
            hint=_hint(),
        )
    unknown = sorted(set(given) - set(SETTING_NAMES))
    if unknown:
        raise InvalidInput("unknown safety settings", value=unknown)
    return None, replace(SafetyConfig.MEDIUM, **given)


def _hint() -> str:
    return f"use {', '.join((_OFF, *PRESETS, *presets_of_methods()))}"


def _concept_texts(concepts: str | Sequence[str]) -> tuple[str, ...]:
    found = plain_list("safety_concept", concepts) if is_listed(concepts) else (concepts,)
    texts = tuple(plain_text("safety_concept", text) for text in found if is_text(text))
    if not texts or len(texts) != len(found) or not all(text.strip() for text in texts):
        raise InvalidInput(
            "a safety concept is empty or not text",
            value=concepts,
            hint='describe what to suppress; safety="off" is the only way to turn SLD off',
        )
    if len(set(texts)) != len(texts):
        raise InvalidInput("a safety concept is given twice", value=concepts)
    return texts
