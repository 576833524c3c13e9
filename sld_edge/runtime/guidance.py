"""Safe Latent Diffusion's equations and the scheduler update, once, as pure functions.

Written against the Python array API standard: ``xp`` is NumPy for the reference, or a tracer that turns the
same lines into the ``advance`` graph. Arrays are float32. ``R`` branches in the order unconditional (or
negative prompt), prompt, then one row for each safety concept; ``B`` samples; ``S`` rows of scheduler state.

Sources: Schramowski et al., "Safe Latent Diffusion", arXiv 2211.05105 (equation numbers below; the factor of
equation 6 is the *minimum* of 1 and the scaled difference, as both public implementations have it). Choosing
among several concepts: conflict-aware guidance, arXiv 2602.20880. The adaptive method's equations, with what they
take from where, are in docs/guidance.md.
"""

from __future__ import annotations

from typing import Any, NamedTuple

#: Added to squared norms so that the direction of an all-zero prediction is defined.
_TINY = 1e-20


class Settings(NamedTuple):
    """The numbers of one step, in the order of the ``settings`` input of the ``advance`` graph.

    Graphs of bundles before version 3 take the first six, and know the published method only.
    """

    guidance_scale: Any
    sld_guidance_scale: Any
    sld_threshold: Any
    sld_momentum_scale: Any
    sld_mom_beta: Any
    #: Factor of the safety term γ: 1 where it is subtracted, 0 during warm-up and with safety off, between them
    #: where a step crosses the level at which the warm-up ends.
    active: Any
    #: 1 for the adaptive method, 0 for the published one.
    adaptive: Any = 0.0
    #: c₀ and c₁, cosines between which the adaptive strength w rises from 0 to 1.
    cosine_low: Any = 0.0
    cosine_high: Any = 1.0


#: Numbers of a step in bundles before version 3.
PUBLISHED_SETTINGS = 6


def advance(
    xp: Any,
    noise_pred: Any,
    state: Any,
    momentum: Any,
    noise: Any,
    matrix: Any,
    settings: Any,
    strength: Any,
) -> tuple[Any, Any, Any]:
    """One step after the network: guidance, safety, momentum, scheduler.

    Args:
        xp: Array API namespace.
        noise_pred: ``[R, B, C, h, w]`` predictions, R ≥ 3 (with safety off the third row is unused zeros).
        state: ``[S, B, C, h, w]``; row 0 is the sample, the others are what the scheduler remembers.
        momentum: ``[B, C, h, w]``, ν of the paper, zeros before the first step.
        noise: ``[B, C, h, w]`` fresh unit Gaussian noise; its weight is 0 for deterministic schedulers.
        matrix: ``[S, S + 2]``, the scheduler's table row: S' = matrix · [S; ε̂; noise].
        settings: ``[9]``, see :class:`Settings`.
        strength: ``[R − 2, B]``, w of the adaptive method so far for each concept, zeros before the first step.

    Returns:
        The next state ``[S, B, C, h, w]``, the next momentum ``[B, C, h, w]`` and the next strength ``[R − 2, B]``.
    """
    numbers = Settings(*(settings[i] for i in range(len(Settings._fields))))
    guided, next_momentum, next_strength = guide(xp, noise_pred, momentum, numbers, strength)
    stacked = xp.concat([state, guided[None, ...], noise[None, ...]], axis=0)
    weights = matrix[:, :, None, None, None, None]
    next_state = xp.sum(weights * stacked[None, ...], axis=1)
    return next_state, next_momentum, next_strength


def guide(
    xp: Any, noise_pred: Any, momentum: Any, settings: Settings, strength: Any
) -> tuple[Any, Any, Any]:
    """Guided prediction ε̂ (equation 3), next momentum and next strength; shapes as in :func:`advance`."""
    uncond = noise_pred[0, ...]
    text = noise_pred[1, ...]
    concepts = noise_pred[2:, ...]
    cosine = concept_cosines(xp, uncond, text, concepts)
    chosen = closest(xp, cosine)
    next_strength = adaptive_strength(xp, cosine, strength, settings)
    concept = _of_chosen(xp, chosen, concepts)
    adaptive = _of_chosen(xp, chosen, next_strength[:, :, None, None, None])
    published = published_factor(xp, text - concept, settings)
    factor = xp.where(settings.adaptive > 0.5, adaptive, published)
    gamma, next_momentum = with_momentum(xp, factor * (concept - uncond), momentum, settings)
    direction = text - uncond - settings.active * gamma
    return uncond + settings.guidance_scale * direction, next_momentum, next_strength


def published_factor(xp: Any, difference: Any, settings: Settings) -> Any:
    """μ of equations 4 and 6, elementwise: min(1, |ε_p − ε_s|·s_S) where ε_p − ε_s < λ, else 0."""
    scaled = xp.abs(difference) * settings.sld_guidance_scale
    ones = xp.ones_like(scaled)
    mu = xp.where(scaled < ones, scaled, ones)
    return xp.where(difference < settings.sld_threshold, mu, xp.zeros_like(mu))


def safety_term(
    xp: Any, uncond: Any, text: Any, concept: Any, momentum: Any, settings: Settings
) -> tuple[Any, Any]:
    """γ of the published method with its momentum (equations 4, 6 and 7) and the next momentum (equation 8)."""
    factor = published_factor(xp, text - concept, settings)
    return with_momentum(xp, factor * (concept - uncond), momentum, settings)


def with_momentum(xp: Any, push: Any, momentum: Any, settings: Settings) -> tuple[Any, Any]:
    """γ with its momentum (equation 7) and the next momentum (equation 8).

    Args:
        push: ``[B, C, h, w]``, the factor times ε_s − ε_u.
    """
    gamma = push + settings.sld_momentum_scale * momentum
    beta = settings.sld_mom_beta
    return gamma, beta * momentum + (1.0 - beta) * gamma


def concept_cosines(xp: Any, uncond: Any, text: Any, concepts: Any) -> Any:
    """Cosine between ε_p − ε_u and ε_s − ε_u over all elements of a sample, for each concept.

    Args:
        concepts: ``[K, B, C, h, w]``.

    Returns:
        ``[K, B]``.
    """
    towards = (text - uncond)[None, ...]
    away = concepts - uncond[None, ...]
    axes = (2, 3, 4)
    dot = xp.sum(towards * away, axis=axes)
    # One square root each: the product of two squared norms would leave float32's range.
    lengths = xp.sqrt(xp.sum(away * away, axis=axes) + _TINY) * xp.sqrt(
        xp.sum(towards * towards, axis=axes) + _TINY
    )
    return dot / lengths


def closest(xp: Any, cosine: Any) -> Any:
    """Weights ``[K, B]`` of the concept with the largest cosine: 1 and zeros; equal ones share the 1."""
    if cosine.shape[0] == 1:
        return xp.ones_like(cosine)
    # The largest is the one that no other exceeds: traced, `max` would bring control flow that TensorRT refuses.
    exceeded = xp.astype(cosine[None, ...] > cosine[:, None, ...], cosine.dtype)
    best = xp.astype(xp.sum(exceeded, axis=1) == 0, cosine.dtype)
    return best / xp.sum(best, axis=0, keepdims=True)


def adaptive_strength(xp: Any, cosine: Any, strength: Any, settings: Settings) -> Any:
    """w of the adaptive method, ``[K, B]``: a ramp of the cosine from c₀ to c₁, kept at its largest so far."""
    ramp = (cosine - settings.cosine_low) / (settings.cosine_high - settings.cosine_low + _TINY)
    ones = xp.ones_like(ramp)
    ramp = xp.where(ramp < ones, ramp, ones)
    return xp.where(ramp > strength, ramp, strength)


def _of_chosen(xp: Any, chosen: Any, values: Any) -> Any:
    """Values ``[K, B, …]`` of the chosen concept, ``[B, …]``."""
    if values.shape[0] == 1:
        return values[0, ...]
    return xp.sum(chosen[:, :, None, None, None] * values, axis=0)
