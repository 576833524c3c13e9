"""The table of scheduler families: a new one is one entry."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sld_edge import InvalidInput, SafePipeline
from sld_edge.runtime.infotext import sampler_label
from sld_edge.runtime.policy import fewest_steps
from sld_edge.runtime.schedulers import build_schedule, scheduler_names
from sld_edge.runtime.schedulers.families import FAMILIES
from sld_edge.runtime.schedulers.family import COMMON, Family, Request, Settings
from sld_edge.runtime.schedulers.noise_schedule import alphas_cumprod
from sld_edge.runtime.schedulers.spacing import spaced_timesteps
from sld_edge.runtime.schedulers.table import Table, data_prediction, symbols
from tests.likeness import psnr

from .reference import SD15

CALL: dict[str, Any] = {"seed": 1, "num_inference_steps": 4, "output_type": "np", "progress": False}


def table_of(s: Settings, r: Request) -> Table:
    """DDIM's steps, written by the growth of log-SNR and x₀ instead of ε."""
    timesteps = spaced_timesteps(s, r.steps)
    bar = alphas_cumprod(s).astype(np.float64)
    x, _, out = symbols(0)
    matrices = []
    for t in timesteps.astype(int):
        earlier = t - s.num_train_timesteps // r.steps
        here, there = bar[t], bar[earlier] if earlier >= 0 else bar[0]
        ratio = np.sqrt((1 - there) / (1 - here))
        x0 = data_prediction(s.prediction_type, x, out, np.sqrt(here), np.sqrt(1 - here))
        matrices.append([ratio * x + (np.sqrt(there) - ratio * np.sqrt(here)) * x0])
    still = np.zeros(r.steps)
    return Table(timesteps, np.ones(r.steps), np.array(matrices), still, 1.0)


DUMMY = Family(
    name="dummy",
    class_name="DummyScheduler",
    label="Dummy!",
    table=table_of,
    keys=COMMON,
    fewest_steps=17,
    aliases=("k_dummy",),
    defaults={"timestep_spacing": "leading"},
)


def test_a_new_scheduler_is_one_entry(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """docs/architecture.md, *A scheduler*: named, resolved, recorded, refused and run like the others."""
    before = scheduler_names()
    monkeypatch.setitem(FAMILIES, "dummy", DUMMY)
    assert set(scheduler_names()) - set(before) == {"dummy"}
    for name in ("dummy", "DummyScheduler", "K Dummy"):
        assert build_schedule(name, SD15, steps=3).name == "dummy"
    own = {**SD15, "_class_name": "DummyScheduler"}
    assert build_schedule(None, own, steps=3).config["_class_name"] == "DummyScheduler"
    assert sampler_label("dummy") == "Dummy!"
    assert fewest_steps("dummy") == 17
    with pytest.raises(InvalidInput, match="takes no timesteps"):
        build_schedule("dummy", SD15, timesteps=[5, 1])
    with SafePipeline.from_pretrained(tiny_bundle, "onnxruntime:cpu") as pipe:
        found, wanted = (pipe("two dogs", scheduler=name, **CALL) for name in ("dummy", "ddim"))
        with pytest.raises(InvalidInput, match="unknown scheduler"):
            pipe.check("two dogs", scheduler="dumbo")
    assert found.record["scheduler"] == "dummy"
    assert found.images.std() > 0.01
    assert psnr(found.images, wanted.images) > 80


def test_without_its_entry_it_is_gone() -> None:
    assert "dummy" not in scheduler_names()
    with pytest.raises(InvalidInput, match="unknown scheduler"):
        build_schedule("dummy", SD15, steps=3)
