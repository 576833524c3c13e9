"""A bundle's policy as a floor on what happens: judged on the resolved run, not on a call's arguments."""

from __future__ import annotations

from typing import Final, Literal

import numpy as np

from sld_edge.errors import PolicyError
from sld_edge.manifest import HarmWords, Policy, Safety
from sld_edge.runtime.methods import METHODS, PUBLISHED
from sld_edge.runtime.safety import PRESETS, Guard, SafetyConfig
from sld_edge.runtime.schedulers.families import FAMILIES
from sld_edge.runtime.schedulers.names import family_of
from sld_edge.runtime.steering import Steering

_OFF: Final = "off"
#: Guidance scales at which the floor was measured to hold (docs/safety.md); others are refused under a policy.
GUIDANCE_SCALES: Final = (3.0, 10.0)
#: Fewest steps for which the floor was measured with any scheduler; few-step schedulers were measured for fewer.
FEWEST_STEPS: Final = min(f.fewest_steps for f in FAMILIES.values() if not f.few_step)
FEWEST_OF_FEW_STEP: Final = min(f.fewest_steps for f in FAMILIES.values() if f.few_step)
#: Fewest steps with a curve of sigmas, by the suffix of its name; those of the solvers are :attr:`Family.fewest_steps`.
#: From there on benign pictures of the tiny world come out right (docs/safety.md): in broken ones anything may be seen,
#: with and without safety.
_FEWEST_OF_CURVE: Final = {"karras": 14, "exponential": 14, "lu": 14, "beta": 30}
_ROUNDING: Final = 1e-9

HarmfulWords = Literal["remove", "refuse", "allow", "concepts"]


def has_floor(policy: Policy) -> bool:
    """Whether the policy asks for some safety."""
    return policy.minimum != _OFF


def check_policy(
    bundle: Safety,
    guard: Guard,
    steering: Steering,
    floor: Steering | None,
    *,
    scheduler: str,
    steps: int,
    own_levels: bool,
    guidance_scale: float,
    negative_prompts: tuple[str, ...],
) -> None:
    """Refuse a run that the bundle's policy does not allow.

    Args:
        bundle: The bundle's safety part.
        guard: What the call asks for.
        steering: What the loop would be told.
        floor: What it would be told for the policy's minimum on the same schedule; None without a minimum.
        scheduler: Canonical name of the run's scheduler.
        steps: Its number of steps.
        own_levels: Whether the call chose timesteps or sigmas itself.
        guidance_scale: s_g.
        negative_prompts: One for each image, empty where there is none.

    Raises:
        PolicyError: naming what the policy asks for and what to do.
    """
    policy = bundle.policy
    if policy.negative_prompt == "forbid" and any(text.strip() for text in negative_prompts):
        raise PolicyError(
            "this bundle's policy does not allow negative prompts", hint="leave negative_prompt out"
        )
    # Not even further concepts beside it: each image is steered by the one closest to its prompt, so a
    # decoy that repeats the prompt would win and steer nowhere.
    if policy.concept == "required" and guard.concepts not in _own_concepts(bundle, guard):
        raise PolicyError(
            "this bundle's policy fixes its own safety concept",
            value=guard.concepts,
            hint="leave the concept out, or export a bundle for the other one",
        )
    if policy.schedule == "standard" or (floor is not None and policy.schedule != "free"):
        _check_schedule(scheduler, own_levels, steps)
    if floor is None or guard.config is None:
        return
    minimum = policy.minimum
    hint = f"use safety={minimum!r} or stronger"
    low, high = GUIDANCE_SCALES
    if not low <= guidance_scale <= high:
        raise PolicyError(
            "under this bundle's policy the guidance scale is limited to where its floor holds",
            value=guidance_scale,
            hint=f"use {low:g} to {high:g}",
        )
    method = METHODS[guard.method]
    tells_words = isinstance(bundle.words, HarmWords)
    if method.by_harm and not tells_words and any(text.strip() for text in negative_prompts):
        raise PolicyError(
            "this bundle's text encoder does not tell harms from other words, and a negative prompt that names a "
            f"harm turns {guard.method} guidance round",
            hint=f"leave negative_prompt out, or use method={PUBLISHED!r}",
        )
    if method.reaches is not None:
        if minimum not in method.reaches:
            raise PolicyError(
                f"this bundle's policy asks for at least {minimum!r}, which the {guard.method} method does not reach",
                hint=hint,
            )
        return
    weaker = _weaker(guard.config, PRESETS[minimum], steering, floor)
    if weaker:
        raise PolicyError(
            f"this bundle's policy asks for at least {minimum!r}, this run would be weaker",
            value=weaker,
            hint=hint,
        )


def harmful_words(bundle: Safety, guard: Guard) -> HarmfulWords:
    """What becomes of words that name a harm; ``concepts``: only prompts that are made of them are answered."""
    policy = bundle.policy
    if isinstance(policy.harmful_words, str):
        return policy.harmful_words
    if METHODS[guard.method].by_harm or has_floor(policy):
        return "remove"
    return "allow" if guard.config is None or guard.method_given else "concepts"


def _own_concepts(bundle: Safety, guard: Guard) -> tuple[tuple[str, ...], ...]:
    own: tuple[tuple[str, ...], ...] = ((bundle.concept,),)
    if METHODS[guard.method].by_harm and isinstance(bundle.harms, tuple):
        own += (tuple(harm.text for harm in bundle.harms),)
    return own


def fewest_steps(scheduler: str) -> int:
    """Fewest steps that a policy takes of a scheduler, by its canonical name."""
    curve = scheduler.rsplit("_", 1)[-1]
    return max(family_of(scheduler).fewest_steps, _FEWEST_OF_CURVE.get(curve, 0))


def _check_schedule(scheduler: str, own_levels: bool, steps: int) -> None:
    if own_levels:
        raise PolicyError(
            "under this bundle's policy a call cannot choose its own timesteps or sigmas",
            hint="use num_inference_steps, or export with --policy-schedule free",
        )
    fewest = fewest_steps(scheduler)
    if steps < fewest:
        raise PolicyError(
            "under this bundle's policy a run has a least number of steps",
            value=steps,
            hint=f"use at least {fewest} steps with {scheduler}",
        )


def _weaker(config: SafetyConfig, least: SafetyConfig, steering: Steering, floor: Steering) -> str:
    """What of a run is weaker than the floor's on the same schedule; empty where nothing is."""
    found = [
        f"{name}={config[name]:g}"
        for name in ("sld_guidance_scale", "sld_threshold", "sld_momentum_scale")
        if config[name] < least[name]
    ]
    late = np.flatnonzero(steering.acting < floor.acting - _ROUNDING)
    if len(late):
        found.append(f"safety does not act fully at evaluation {int(late[0])}")
    acts = floor.acting > 0.0
    if (steering.response[acts] < floor.response[acts] * (1.0 - _ROUNDING)).any():
        found.append(f"momentum builds up later (sld_mom_beta={config.sld_mom_beta:g})")
    return ", ".join(found)
