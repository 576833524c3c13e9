"""Safe Latent Diffusion's equations and the scheduler update, once, as pure functions.

Written against the Python array API standard: ``xp`` is NumPy for the reference, or a tracer that turns the
same lines into the ``advance`` graph. Arrays are float32. ``R`` branches in the order unconditional (or
negative prompt), prompt, then one row for each safety concept; ``B`` samples; ``S`` rows of scheduler state.

Sources: Schramowski et al., "Safe Latent Diffusion", arXiv 2211.05105 (equation numbers below; the factor of
equation 6 is the *minimum* of 1 and the scaled difference, as both public implementations have it). Choosing
among several concepts: conflict-aware guidance, arXiv 2602.20880.
"""

from __future__ import annotations

from typing import Any, NamedTuple

#: Added to squared norms so that the direction of an all-zero prediction is defined.
_TINY = 1e-20


class Settings(NamedTuple):
    """The six numbers of one step, in the order of the ``settings`` input of the ``advance`` graph."""

    guidance_scale: Any
    sld_guidance_scale: Any
    sld_threshold: Any
    sld_momentum_scale: Any
    sld_mom_beta: Any
    #: 1 where the safety term is subtracted, 0 during warm-up and with safety off.
    active: Any


def advance(
    xp: Any,
    noise_pred: Any,
    state: Any,
    momentum: Any,
    noise: Any,
    matrix: Any,
    settings: Any,
) -> tuple[Any, Any]:
    """One step after the network: guidance, safety, momentum, scheduler.

    Args:
        xp: Array API namespace.
        noise_pred: ``[R, B, C, h, w]`` predictions, R ≥ 3 (with safety off the third row is unused zeros).
        state: ``[S, B, C, h, w]``; row 0 is the sample, the others are what the scheduler remembers.
        momentum: ``[B, C, h, w]``, ν of the paper, zeros before the first step.
        noise: ``[B, C, h, w]`` fresh unit Gaussian noise; its weight is 0 for deterministic schedulers.
        matrix: ``[S, S + 2]``, the scheduler's table row: S' = matrix · [S; ε̂; noise].
        settings: ``[6]``, see :class:`Settings`.

    Returns:
        The next state ``[S, B, C, h, w]`` and the next momentum ``[B, C, h, w]``.
    """
    numbers = Settings(*(settings[i] for i in range(len(Settings._fields))))
    guided, next_momentum = guide(xp, noise_pred, momentum, numbers)
    stacked = xp.concat([state, guided[None, ...], noise[None, ...]], axis=0)
    weights = matrix[:, :, None, None, None, None]
    next_state = xp.sum(weights * stacked[None, ...], axis=1)
    return next_state, next_momentum


def guide(xp: Any, noise_pred: Any, momentum: Any, settings: Settings) -> tuple[Any, Any]:
    """Guided prediction ε̂ (equation 3) and next momentum; shapes as in :func:`advance`."""
    uncond = noise_pred[0, ...]
    text = noise_pred[1, ...]
    concept = choose_concept(xp, uncond, text, noise_pred[2:, ...])
    gamma, next_momentum = safety_term(xp, uncond, text, concept, momentum, settings)
    direction = text - uncond - settings.active * gamma
    return uncond + settings.guidance_scale * direction, next_momentum


def safety_term(
    xp: Any, uncond: Any, text: Any, concept: Any, momentum: Any, settings: Settings
) -> tuple[Any, Any]:
    """γ with its momentum (equations 4, 6 and 7) and the next momentum (equation 8)."""
    difference = text - concept
    scaled = xp.abs(difference) * settings.sld_guidance_scale
    ones = xp.ones_like(scaled)
    mu = xp.where(scaled < ones, scaled, ones)
    mu = xp.where(difference < settings.sld_threshold, mu, xp.zeros_like(mu))
    gamma = mu * (concept - uncond) + settings.sld_momentum_scale * momentum
    beta = settings.sld_mom_beta
    return gamma, beta * momentum + (1.0 - beta) * gamma


def choose_concept(xp: Any, uncond: Any, text: Any, concepts: Any) -> Any:
    """The prediction of the concept whose direction is closest to the prompt's, for each sample.

    With one concept this is that concept. With several, the one with the largest cosine between
    ε_p − ε_u and ε_s − ε_u over all latent elements; equal ones are averaged.

    Args:
        concepts: ``[K, B, C, h, w]``.

    Returns:
        ``[B, C, h, w]``.
    """
    if concepts.shape[0] == 1:
        return concepts[0, ...]
    towards = (text - uncond)[None, ...]
    away = concepts - uncond[None, ...]
    axes = (2, 3, 4)
    dot = xp.sum(towards * away, axis=axes, keepdims=True)
    norm = xp.sum(away * away, axis=axes, keepdims=True)
    cosine = dot / xp.sqrt(norm + _TINY)
    # The largest is the one that no other exceeds: traced, `max` would bring control flow that TensorRT refuses.
    exceeded = xp.astype(cosine[None, ...] > cosine[:, None, ...], concepts.dtype)
    best = xp.astype(xp.sum(exceeded, axis=1) == 0, concepts.dtype)
    return xp.sum(best / xp.sum(best, axis=0, keepdims=True) * concepts, axis=0)
