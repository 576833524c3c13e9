"""Every scheduler, prediction type and spacing against diffusers, stepped side by side."""

from __future__ import annotations

import pytest

from sld_edge.runtime.schedulers import build_schedule, scheduler_names

from .reference import SD15, SD21, compare, diffusers_scheduler

KINDS = ("epsilon", "v_prediction")
SPACINGS = ("linspace", "leading", "trailing")
CURVES = ("_karras", "_exponential", "_beta", "_lu")
PLAIN = [name for name in scheduler_names() if not name.endswith(CURVES)]
CURVED = [name for name in scheduler_names() if name.endswith(CURVES)]


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", PLAIN)
def test_equals_diffusers(name: str, kind: str, spacing: str) -> None:
    base = SD15 if kind == "epsilon" else SD21
    config = {**base, "prediction_type": kind, "timestep_spacing": spacing}
    for steps in (1, 2, 3, 4, 16):
        compare(name, config, steps=steps, eta=0.5 if steps % 2 else 0.0)


@pytest.mark.parametrize("name", CURVED)
def test_curves_equal_diffusers(name: str) -> None:
    for steps in (1, 2, 3, 16):
        compare(name, SD15, steps=steps)
    compare(name, SD21, steps=4)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", PLAIN)
def test_equals_untouched_diffusers_in_float32(name: str, kind: str) -> None:
    compare(name, {**SD15, "prediction_type": kind}, steps=25, double=False, eta=1.0)


@pytest.mark.slow
@pytest.mark.parametrize("double", [True, False], ids=["float64", "float32"])
@pytest.mark.parametrize("base", [SD15, SD21], ids=["sd15", "sd21"])
@pytest.mark.parametrize("name", scheduler_names())
def test_equals_diffusers_over_the_whole_grid(
    name: str, base: dict[str, object], double: bool
) -> None:
    for kind in KINDS:
        # The other checkpoint has the other kind as its own: here it is enough that it is understood.
        own = kind == base.get("prediction_type", "epsilon")
        counts = (1, 2, 3, 4, 10, 14, 15, 25, 50) if own else (2, 15)
        for spacing in SPACINGS:
            config = {**base, "prediction_type": kind, "timestep_spacing": spacing}
            for steps in counts:
                compare(name, config, steps=steps, double=double, eta=0.7, seed=steps)


@pytest.mark.parametrize(
    "name", ["ddim", "euler", "dpmpp_2m_karras", "unipc", "lms_karras", "heun", "deis", "ddpm"]
)
def test_equals_diffusers_for_many_steps(name: str) -> None:
    compare(name, SD15, steps=250)


@pytest.mark.parametrize("skipped", [True, False], ids=["plms", "runge-kutta start"])
def test_pndm_equals_diffusers_at_every_number_of_steps(skipped: bool) -> None:
    config = {**SD15, "skip_prk_steps": skipped}
    for steps in range(1 if skipped else 4, 25):  # diffusers refuses the other below four
        compare("pndm", config, steps=steps)
    for spacing in SPACINGS:
        spaced = {**config, "timestep_spacing": spacing}
        reference = diffusers_scheduler("pndm", spaced)
        for steps in (*range(25, 1000, 61), 999):
            reference.set_timesteps(steps)
            # Rounding makes trailing spacing append timestep −1 at some numbers (see test_options).
            want = [one for one in reference.timesteps.tolist() if one >= 0]
            ours = build_schedule("pndm", spaced, steps=steps)
            assert ours.timesteps.tolist() == want, (spacing, steps)


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize(
    "name", ["ddim", "ddpm", "euler", "euler_ancestral", "dpmpp_2m", "unipc", "lcm", "tcd"]
)
def test_zero_terminal_snr_equals_diffusers_at_every_spacing(name: str, spacing: str) -> None:
    config = {**SD21, "rescale_betas_zero_snr": True, "timestep_spacing": spacing}
    for steps in (1, 2, 5, 20):
        compare(name, config, steps=steps, eta=0.0)
