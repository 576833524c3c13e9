"""Every scheduler, prediction type and spacing against diffusers, stepped side by side."""

from __future__ import annotations

import pytest

from sld_edge.runtime.schedulers import scheduler_names

from .reference import SD15, SD21, compare

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
        for spacing in SPACINGS:
            config = {**base, "prediction_type": kind, "timestep_spacing": spacing}
            for steps in (1, 2, 3, 4, 10, 14, 15, 25, 50):
                compare(name, config, steps=steps, double=double, eta=0.7, seed=steps)


@pytest.mark.parametrize(
    "name", ["ddim", "euler", "dpmpp_2m_karras", "unipc", "lms_karras", "heun", "deis", "ddpm"]
)
def test_equals_diffusers_for_many_steps(name: str) -> None:
    compare(name, SD15, steps=250)
