"""The equations against an independent transcription, against diffusers, and their properties."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from sld_edge.runtime.guidance import (
    Settings,
    advance,
    closest,
    concept_cosines,
    guide,
    safety_term,
)
from sld_edge.runtime.safety import PRESETS

Floats = NDArray[np.float32]
SHAPE = (2, 4, 8, 8)


def noise(seed: int, *shape: int) -> Floats:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def elementwise(u: float, p: float, s: float, nu: float, k: Settings) -> tuple[float, float]:
    """One element, straight from the formulas, in Python floats."""
    d = p - s
    mu = min(1.0, abs(d) * k.sld_guidance_scale) if d < k.sld_threshold else 0.0
    gamma = mu * (s - u) + k.sld_momentum_scale * nu
    guided = u + k.guidance_scale * (p - u - (gamma if k.active else 0.0))
    return guided, k.sld_mom_beta * nu + (1.0 - k.sld_mom_beta) * gamma


def strengths(concepts: int = 1, batch: int = SHAPE[0]) -> Floats:
    return np.zeros((concepts, batch), np.float32)


def settings(name: str, active: int = 1) -> Settings:
    c = PRESETS[name]
    return Settings(
        7.5, c.sld_guidance_scale, c.sld_threshold, c.sld_momentum_scale, c.sld_mom_beta, active
    )


@pytest.mark.parametrize("name", list(PRESETS))
@pytest.mark.parametrize("active", [0, 1])
def test_every_element_follows_the_formulas(name: str, active: int) -> None:
    k = settings(name, active)
    pred = noise(0, 3, *SHAPE) * np.float32(
        0.05
    )  # close predictions, so that every case of μ occurs
    nu = noise(1, *SHAPE) * np.float32(0.01)
    guided, momentum, _ = guide(np, pred, nu, k, strengths())
    for index in np.ndindex(*SHAPE):
        u, p, s = (float(pred[(row, *index)]) for row in range(3))
        want = elementwise(u, p, s, float(nu[index]), k)
        assert (guided[index], momentum[index]) == pytest.approx(want, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("name", list(PRESETS))
def test_term_equals_diffusers_over_many_steps(name: str) -> None:
    """diffusers' own method, stepped side by side past every warm-up; names the first step that differs."""
    from diffusers.pipelines.deprecated.stable_diffusion_safe.pipeline_stable_diffusion_safe import (
        StableDiffusionPipelineSafe,
    )

    config = PRESETS[name]
    theirs_nu: torch.Tensor | None = None
    ours_nu = np.zeros(SHAPE, np.float32)
    for step in range(25):
        pred = noise(step, 3, *SHAPE) * np.float32(0.1)
        text_first = torch.from_numpy(np.stack([pred[1], pred[0], pred[2]]))  # their argument order
        guidance, theirs_nu = StableDiffusionPipelineSafe.perform_safety_guidance(
            None, True, theirs_nu, torch.from_numpy(pred[1] - pred[0]), text_first, step, **config
        )
        theirs = pred[0] + 7.5 * guidance.numpy()
        active = float(step >= config.sld_warmup_steps)
        numbers = settings(name)._replace(active=active)
        ours, ours_nu, _ = guide(np, pred, ours_nu, numbers, strengths())
        np.testing.assert_allclose(
            ours, theirs, rtol=0, atol=1e-5, err_msg=f"first differs at step {step}"
        )
        np.testing.assert_allclose(
            ours_nu, theirs_nu.numpy(), atol=1e-6, err_msg=f"momentum, step {step}"
        )


@given(st.floats(-2, 2), st.floats(-2, 2), st.floats(-2, 2), st.sampled_from(list(PRESETS)))
def test_without_momentum_the_term_never_points_towards_the_concept(
    u: float, p: float, s: float, name: str
) -> None:
    uncond, text, concept = (np.full((1, 1, 1, 1), value, np.float32) for value in (u, p, s))
    gamma, _ = safety_term(
        np, uncond, text, concept, np.zeros((1, 1, 1, 1), np.float32), settings(name)
    )
    direction = np.float32(s) - np.float32(u)
    assert gamma.item() * direction >= 0  # subtracted later, so it moves away
    assert abs(gamma.item()) <= abs(direction)


def test_one_concept_is_taken_as_it_is() -> None:
    pred = noise(3, 3, *SHAPE)
    chosen = closest(np, concept_cosines(np, pred[0], pred[1], pred[2:]))
    np.testing.assert_array_equal(chosen, np.ones((1, SHAPE[0]), np.float32))


@pytest.mark.parametrize("count", [2, 3, 7])
def test_the_closest_concept_is_chosen_for_each_sample(count: int) -> None:
    u, p = noise(0, *SHAPE), noise(1, *SHAPE)
    concepts = noise(2, count, *SHAPE)
    nearest = [1 % count, count - 1]
    for sample, k in enumerate(nearest):
        concepts[k, sample] = u[sample] + 0.5 * (p[sample] - u[sample])
    cosine = concept_cosines(np, u, p, concepts)
    chosen = closest(np, cosine)
    for sample, k in enumerate(nearest):
        assert cosine[k, sample] == pytest.approx(1.0, abs=1e-6)
        np.testing.assert_array_equal(chosen[:, sample], np.eye(count)[k])


ADAPTIVE = Settings(7.5, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 0.3, 0.5)


def between(u: Floats, p: Floats, cosine: float) -> Floats:
    """Predictions ``[B, C, h, w]`` whose direction from u has this cosine with p's."""
    d = (p - u).reshape(len(u), -1).astype(np.float64)
    other = noise(11, *SHAPE).reshape(len(u), -1).astype(np.float64)
    other -= d * (other * d).sum(1, keepdims=True) / (d * d).sum(1, keepdims=True)
    d /= np.linalg.norm(d, axis=1, keepdims=True)
    other /= np.linalg.norm(other, axis=1, keepdims=True)
    away = cosine * d + np.sqrt(1.0 - cosine**2) * other
    return (u + away.reshape(SHAPE)).astype(np.float32)


@pytest.mark.parametrize(
    ("cosine", "w"), [(-0.5, 0.0), (0.3, 0.0), (0.4, 0.5), (0.5, 1.0), (1.0, 1.0)]
)
def test_the_adaptive_strength_rises_with_the_cosine_and_does_not_fade_at_the_concept(
    cosine: float, w: float
) -> None:
    u, p = noise(0, *SHAPE), noise(1, *SHAPE)
    s = between(u, p, cosine)
    nu = np.zeros(SHAPE, np.float32)
    guided, _, strength = guide(np, np.stack([u, p, s]), nu, ADAPTIVE, strengths())
    np.testing.assert_allclose(strength, w, atol=1e-5)
    np.testing.assert_allclose(guided, u + 7.5 * (p - u - w * (s - u)), atol=1e-4)


def test_where_prompt_and_concept_agree_published_guidance_vanishes_and_adaptive_does_not() -> None:
    u, p = noise(0, *SHAPE), noise(1, *SHAPE)
    pred, nu = np.stack([u, p, p]), np.zeros(SHAPE, np.float32)
    published, _, _ = guide(np, pred, nu, settings("max"), strengths())
    np.testing.assert_allclose(published, u + 7.5 * (p - u), atol=1e-5)
    adaptive, _, _ = guide(np, pred, nu, ADAPTIVE, strengths())
    np.testing.assert_allclose(adaptive, u, atol=1e-5)


def test_the_adaptive_strength_is_kept_at_its_largest() -> None:
    u, p = noise(0, *SHAPE), noise(1, *SHAPE)
    nu, before = np.zeros(SHAPE, np.float32), np.array([[0.7, 0.0]], np.float32)
    pred = np.stack([u, p, between(u, p, 0.4)])
    _, _, strength = guide(np, pred, nu, ADAPTIVE, before)
    np.testing.assert_allclose(strength, [[0.7, 0.5]], atol=1e-5)


def test_a_repeated_concept_counts_once() -> None:
    pred = noise(4, 3, *SHAPE)
    twice = np.concatenate([pred, pred[2:]])
    nu = np.zeros(SHAPE, np.float32)
    for one, two in zip(
        guide(np, pred, nu, settings("strong"), strengths())[:2],
        guide(np, twice, nu, settings("strong"), strengths(2))[:2],
        strict=True,
    ):
        np.testing.assert_allclose(one, two, atol=1e-6)


def test_predictions_that_are_not_finite_stay_visible() -> None:
    pred = noise(5, 3, *SHAPE)
    pred[0, 0, 0, 0, 0] = np.nan
    guided, _, _ = guide(np, pred, np.zeros(SHAPE, np.float32), settings("max"), strengths())
    assert np.isnan(guided[0, 0, 0, 0])


@pytest.mark.parametrize("rows", [1, 2, 5])
def test_state_update_is_the_matrix(rows: int) -> None:
    state, pred = noise(6, rows, *SHAPE), noise(7, 3, *SHAPE)
    fresh, matrix = noise(8, *SHAPE), noise(9, rows, rows + 2)
    numbers = np.array(settings("medium"), np.float32)
    nu = np.zeros(SHAPE, np.float32)
    next_state, _, _ = advance(np, pred, state, nu, fresh, matrix, numbers, strengths())
    guided, _, _ = guide(np, pred, nu, Settings(*numbers), strengths())
    want = np.tensordot(matrix.astype(np.float64), np.stack([*state, guided, fresh]), axes=1)
    np.testing.assert_allclose(next_state, want, atol=1e-4)


def test_samples_of_a_batch_do_not_touch_each_other() -> None:
    pred, state = noise(0, 4, *SHAPE), noise(1, 3, *SHAPE)
    nu, fresh, matrix = noise(2, *SHAPE), noise(3, *SHAPE), noise(4, 3, 5)
    numbers = np.array(settings("strong"), np.float32)
    w = strengths(2)
    whole = advance(np, pred, state, nu, fresh, matrix, numbers, w)
    for b in range(SHAPE[0]):
        cut = slice(b, b + 1)
        one = (pred[:, cut], state[:, cut], nu[cut], fresh[cut], matrix, numbers, w[:, cut])
        part = advance(np, *one)
        np.testing.assert_array_equal(part[0], whole[0][:, cut])
        np.testing.assert_array_equal(part[1], whole[1][cut])
