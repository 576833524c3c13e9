"""The plan on host engines against an ordinary loop that allocates everything anew: equal to the last bit."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from sld_edge import Generator, SafePipeline, SafetyConfig
from sld_edge.engines.base import Engine
from sld_edge.manifest import Graph
from sld_edge.runtime.loop import Loop
from sld_edge.runtime.memories.host import HostSpace
from sld_edge.runtime.noise import randn_for
from sld_edge.runtime.plan import Plan, build_plan, tables_for
from sld_edge.runtime.safety import PRESETS, Method
from sld_edge.runtime.schedulers import Schedule, build_schedule, scheduler_names
from sld_edge.runtime.steering import Steering, steer, steering_off

SHAPE = (4, 8, 8)
CONFIGS: dict[str, SafetyConfig | None] = {"off": None, **PRESETS}
CONCEPT = "violence, blood"
#: A curve of sigmas changes numbers of a table, not what a plan is made of.
PLAIN_NAMES = [
    name
    for name in scheduler_names()
    if not name.endswith(("_karras", "_exponential", "_beta", "_lu"))
]


@pytest.fixture(scope="module")
def pipe(tiny_bundle: Path) -> Iterator[SafePipeline]:
    with SafePipeline.from_pretrained(tiny_bundle, "onnxruntime:cpu") as opened:
        yield opened


def steering_of(
    schedule: Schedule, config: SafetyConfig | None, method: Method = "sld", guidance: float = 7.5
) -> Steering:
    """What the loop is told, warm-ups read as noise levels of 50 even timesteps."""
    if config is None:
        return steering_off(schedule, guidance)
    return steer(schedule, None, config, guidance_scale=guidance, method=method)


@dataclass
class Run:
    """What both loops are given."""

    pipe: SafePipeline
    schedule: Schedule
    config: SafetyConfig | None
    context: dict[str, NDArray[Any]]
    branches: int
    shape: tuple[int, int, int, int]
    method: Method = "sld"

    def steering(self, guidance: float = 7.5) -> Steering:
        return steering_of(self.schedule, self.config, self.method, guidance)

    def tables(self, guidance: float = 7.5) -> Any:
        return tables_for(self.schedule, self.steering(guidance), self.advance.graph)

    @property
    def advance(self) -> Engine:
        with self.pipe._networks.use("advance") as engines:
            return engines["advance"]

    def plan(self) -> Plan:
        return build_plan(
            self.pipe._networks.loaded["unet"].graph,
            self.advance.graph,
            schedule=self.schedule,
            steering=self.steering(),
            branches=self.branches,
            latent_shape=self.shape,
        )


def run_of(
    pipe: SafePipeline,
    scheduler: str,
    config: SafetyConfig | None,
    batch: int,
    *,
    steps: int = 20,
    concepts: int = 1,
    eta: float = 0.0,
    method: Method = "sld",
) -> Run:
    prompts = ["a portrait of a knight", "two dogs", "a quiet street"][:batch]
    texts = [
        [""] * batch,
        prompts,
        *([f"{CONCEPT} {i}"] * batch for i in range(concepts if config else 0)),
    ]
    encode = pipe._tokenizer.encode
    ids = np.stack([encode(row, what="negative_prompt").ids for row in texts])
    schedule = build_schedule(scheduler, pipe.bundle.manifest.scheduler, steps=steps, eta=eta)
    context = pipe._context.encode(ids)
    return Run(pipe, schedule, config, context, len(texts), (batch, *SHAPE), method)


def ordinary_loop(run: Run, generator: Generator) -> list[NDArray[np.float32]]:
    """Fresh arrays at every step and no table but the schedule's own numbers."""
    schedule, steering = run.schedule, run.steering()
    state = np.zeros((schedule.history + 1, *run.shape), np.float32)
    state[0] = randn_for(run.shape, generator) * np.float32(schedule.init_noise_sigma)
    momentum = np.zeros(run.shape, np.float32)
    strength = np.zeros((max(run.branches, 3) - 2, run.shape[0]), np.float32)
    samples = []
    for i in range(schedule.evaluations):
        needed = run.config is not None and steering.matters_at(i)
        used = run.branches if needed else 2
        out = run.pipe._networks.loaded["unet"].run(
            {
                **{name: array[:used].copy() for name, array in run.context.items()},
                "latents": state[0].copy(),
                "input_scale": np.array([schedule.input_scale[i]], np.float32),
                "timestep": np.array([schedule.timesteps[i]], np.float32),
            }
        )["noise_pred"]
        # rows nobody computed: their contents must not matter
        rest = np.full((max(run.branches, 3) - used, *run.shape), 0.0, np.float32)
        column = np.zeros((schedule.history + 1, 1))
        column[0] = schedule.noise_scale[i]
        fresh = schedule.noise_scale[i] != 0
        result = run.advance.run(
            {
                "noise_pred": np.concatenate([out, rest]),
                "state": state,
                "momentum": momentum,
                "noise": randn_for(run.shape, generator)
                if fresh
                else np.zeros(run.shape, np.float32),
                "matrix": np.hstack([schedule.matrices[i], column]).astype(np.float32),
                "settings": steering.settings[i].astype(np.float32),
                "strength": strength,
            }
        )
        state, momentum = result["next_state"], result["next_momentum"]
        strength = result["next_strength"]
        samples.append(state[0].copy())
    return samples


def host_loop(run: Run) -> Loop:
    engines = {"unet": run.pipe._networks.loaded["unet"], "advance": run.advance}
    return Loop(run.plan(), engines, HostSpace)


def planned_loop(
    run: Run, generator: Generator, guidance: float = 7.5
) -> list[NDArray[np.float32]]:
    noise = randn_for(run.shape, generator)
    with host_loop(run) as loop:
        steps = loop.run(
            noise,
            run.schedule.init_noise_sigma,
            lambda: randn_for(run.shape, generator),
            context=run.context,
            tables=run.tables(guidance),
        )
        return [latents.copy() for _, _, latents in steps]


def assert_equal(run: Run) -> None:
    want, got = ordinary_loop(run, Generator(3)), planned_loop(run, Generator(3))
    assert len(want) == len(got)
    for index, (a, b) in enumerate(zip(want, got, strict=True)):
        assert np.array_equal(a, b), f"first differs at step {index}: {np.abs(a - b).max():.1e}"


@pytest.mark.parametrize("preset", list(CONFIGS))
@pytest.mark.parametrize("scheduler", PLAIN_NAMES)
def test_every_scheduler_and_preset_is_equal_bit_for_bit(
    pipe: SafePipeline, scheduler: str, preset: str
) -> None:
    assert_equal(run_of(pipe, scheduler, CONFIGS[preset], 1))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("scheduler", "preset", "batch"),
    list(itertools.product(["pndm", "euler_ancestral", "unipc", "lms"], CONFIGS, [2, 3])),
)
def test_batches_are_equal_bit_for_bit(
    pipe: SafePipeline, scheduler: str, preset: str, batch: int
) -> None:
    assert_equal(run_of(pipe, scheduler, CONFIGS[preset], batch, steps=25))


@pytest.mark.parametrize("concepts", [2, 4])
@pytest.mark.parametrize("preset", ["weak", "strong"])
def test_several_concepts_are_equal_bit_for_bit(
    pipe: SafePipeline, preset: str, concepts: int
) -> None:
    assert_equal(run_of(pipe, "pndm", CONFIGS[preset], 2, concepts=concepts))


@pytest.mark.parametrize("concepts", [1, 3])
def test_the_adaptive_method_is_equal_bit_for_bit(pipe: SafePipeline, concepts: int) -> None:
    config = CONFIGS["strong"]
    assert_equal(run_of(pipe, "dpmpp_2m", config, 2, concepts=concepts, method="adaptive"))


def test_fresh_noise_of_ddim_is_drawn_in_order(pipe: SafePipeline) -> None:
    assert_equal(run_of(pipe, "ddim", CONFIGS["medium"], 2, eta=0.7))


def test_a_second_run_of_the_same_buffers_starts_clean(pipe: SafePipeline) -> None:
    run = run_of(pipe, "lms", CONFIGS["max"], 1)
    other = {name: array + np.float32(0.1) for name, array in run.context.items()}
    noise = Generator(5).randn(run.shape)
    with host_loop(run) as loop:
        first, between, second = (
            [
                x.copy()
                for _, _, x in loop.run(
                    noise, run.schedule.init_noise_sigma, lambda: noise,
                    context=context, tables=run.tables(),
                )
            ]
            for context in (run.context, other, run.context)
        )  # fmt: skip
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    assert not np.array_equal(first[-1], between[-1])


def graph_of(pipe: SafePipeline) -> Graph:
    return pipe.bundle.graph("unet", height=64, width=64)


def schedule_of(steps: int) -> Schedule:
    return build_schedule("dpmpp_2m", {"num_train_timesteps": 1000}, steps=steps)


def plan_for(
    pipe: SafePipeline, config: SafetyConfig | None, steps: int, batch: int, rows: int
) -> Plan:
    schedule = schedule_of(steps)
    shape = (batch, *SHAPE)
    advance = pipe.bundle.graph("advance")
    return build_plan(
        graph_of(pipe),
        advance,
        schedule=schedule,
        steering=steering_of(schedule, config),
        branches=rows,
        latent_shape=shape,
    )


@given(
    steps=st.integers(1, 60),
    batch=st.integers(1, 4),
    concepts=st.integers(1, 5),
    preset=st.sampled_from(list(PRESETS)),
)
@settings(max_examples=60, deadline=None)
def test_every_launch_reads_what_was_written(
    pipe: SafePipeline, steps: int, batch: int, concepts: int, preset: str
) -> None:
    """No launch reads a buffer it writes, views lie inside their buffers, and states ping-pong."""
    config = PRESETS[preset]
    plan = plan_for(pipe, config, steps, batch, 2 + concepts)
    steering = steering_of(schedule_of(steps), config)
    buffers = dict(plan.buffers)
    current = "state_0"
    for launch in plan.launches:
        read = {view.buffer for _, view in launch.inputs}
        written = {view.buffer for _, view in launch.outputs}
        assert not read & written
        for _, view in (*launch.inputs, *launch.outputs):
            buffer = buffers[view.buffer]
            assert 0 <= view.start < view.stop <= buffer.shape[0]
            assert len(view.shape_in(buffer)) == len(buffer.shape) - (not view.keep_axis)
        inputs = dict(launch.inputs)
        if launch.graph == "unet":
            assert inputs["latents"].buffer == current
            want = 2 + concepts if steering.matters_at(launch.evaluation) else 2
            assert inputs["k_00"].stop == want == dict(launch.outputs)["noise_pred"].stop
        else:
            assert inputs["state"].buffer == current
            current = dict(launch.outputs)["next_state"].buffer
            assert inputs["matrix"].start == launch.evaluation
    assert plan.samples[-1].buffer == current
    assert plan.evaluations == steps


def test_a_plan_depends_on_structure_only(pipe: SafePipeline) -> None:
    """Other strengths and other prompts need no new capture; another warm-up of weak does."""
    medium, strong = (plan_for(pipe, PRESETS[p], 25, 1, 3) for p in ("medium", "strong"))
    assert medium == strong
    assert hash(medium) == hash(strong)
    weak = plan_for(pipe, PRESETS["weak"], 25, 1, 3)
    earlier = replace(PRESETS["weak"], sld_warmup_steps=5)
    assert weak != medium
    assert weak != plan_for(pipe, earlier, 25, 1, 3)
    assert medium != plan_for(pipe, PRESETS["medium"], 26, 1, 3)
