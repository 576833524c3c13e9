"""Runs a diffusers scheduler and our table side by side, on the same network and the same noise."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import diffusers
import numpy as np
import torch
from numpy.typing import NDArray

from sld_edge.runtime.schedulers import Schedule, build_schedule

SHAPE = (1, 4, 4, 4)

SD15: dict[str, Any] = {
    "_class_name": "PNDMScheduler",
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "clip_sample": False,
    "num_train_timesteps": 1000,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "trained_betas": None,
}
SD21: dict[str, Any] = {
    "_class_name": "DDIMScheduler",
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "clip_sample": False,
    "num_train_timesteps": 1000,
    "prediction_type": "v_prediction",
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "trained_betas": None,
}

CLASSES = {
    "ddim": "DDIMScheduler",
    "pndm": "PNDMScheduler",
    "euler": "EulerDiscreteScheduler",
    "euler_ancestral": "EulerAncestralDiscreteScheduler",
    "dpmpp_2m": "DPMSolverMultistepScheduler",
    "lms": "LMSDiscreteScheduler",
    "unipc": "UniPCMultistepScheduler",
    "lcm": "LCMScheduler",
}
#: What a name adds to the checkpoint's configuration.
ADDED: dict[str, dict[str, Any]] = {
    "_karras": {"use_karras_sigmas": True},
    "_sde": {"algorithm_type": "sde-dpmsolver++"},
}


@contextmanager
def quiet() -> Iterator[None]:
    """Hold back warnings about diffusers' own code."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="__array__ implementation")
        warnings.filterwarnings("ignore", message="algorithm_type .* is deprecated")
        yield


def diffusers_scheduler(name: str, config: Mapping[str, Any]) -> Any:
    """The diffusers scheduler as the reference pipeline would hold it."""
    added: dict[str, Any] = {}
    for suffix in ("_karras", "_sde"):
        if name.endswith(suffix):
            name = name.removesuffix(suffix)
            added |= ADDED[suffix]
    with quiet():
        own = getattr(diffusers, config["_class_name"]).from_config(dict(config))
        scheduler = getattr(diffusers, CLASSES[name]).from_config(own.config, **added)
    # StableDiffusionPipelineSafe.__init__ does this to any scheduler it is given.
    changed = dict(scheduler.config)
    if changed.get("steps_offset", 1) != 1:
        changed["steps_offset"] = 1
    if changed.get("clip_sample", False) is True:
        changed["clip_sample"] = False
    scheduler._internal_dict = diffusers.configuration_utils.FrozenDict(changed)
    return scheduler


def network(seed: int) -> Any:
    """A fixed smooth nonlinear function of (input, timestep): errors in either would compound."""
    rng = np.random.default_rng(seed)
    size = int(np.prod(SHAPE))
    mix = rng.standard_normal((size, size)) / np.sqrt(size)
    shift = rng.standard_normal(size)

    def predict(x: NDArray[Any], t: float) -> NDArray[Any]:
        flat = x.astype(np.float64).reshape(-1)
        out = 1.5 * np.tanh(mix @ flat + shift * np.cos(t / 300.0)) + 0.3 * np.sin(2 * flat)
        return np.asarray(out.reshape(SHAPE))

    return predict


class _Float64Torch:
    """torch, with float32 meaning float64: lifts the casts inside a scheduler's ``step``."""

    float32 = torch.float64

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)


@contextmanager
def exact_roots() -> Iterator[None]:
    """Correctly rounded float32 square roots in torch, whose own depend on the CPU's last bit."""
    power, root = torch.Tensor.__pow__, torch.Tensor.sqrt

    def exact_root(x: torch.Tensor) -> torch.Tensor:
        return (
            torch.from_numpy(np.asarray(np.sqrt(x.numpy())))
            if x.dtype == torch.float32
            else root(x)
        )

    def exact_power(x: torch.Tensor, exponent: Any) -> torch.Tensor:
        return exact_root(x) if exponent == 0.5 else power(x, exponent)

    torch.Tensor.__pow__, torch.Tensor.sqrt = exact_power, exact_root  # type: ignore[method-assign]
    try:
        yield
    finally:
        torch.Tensor.__pow__, torch.Tensor.sqrt = power, root  # type: ignore[method-assign]


@contextmanager
def stepping(scheduler: Any, noises: Iterator[NDArray[Any]], *, double: bool) -> Iterator[None]:
    """Give ``scheduler`` our noise, and in double precision its constants as float64.

    Only the arithmetic of ``step`` becomes float64; timesteps, alphas and sigmas keep the values
    that the scheduler computed in float32.
    """
    module = importlib.import_module(type(scheduler).__module__)
    kept = {
        name: getattr(module, name) for name in ("torch", "randn_tensor") if hasattr(module, name)
    }

    def fixed_noise(*_: Any, dtype: torch.dtype, **__: Any) -> torch.Tensor:
        return torch.from_numpy(next(noises)).to(dtype)

    try:
        if "randn_tensor" in kept:
            module.randn_tensor = fixed_noise  # type: ignore[attr-defined]
        if double:
            module.torch = _Float64Torch()  # type: ignore[attr-defined]
            for attribute in ("alphas_cumprod", "final_alpha_cumprod", "sigmas"):
                if hasattr(scheduler, attribute):
                    setattr(scheduler, attribute, getattr(scheduler, attribute).double())
        yield
    finally:
        for name, value in kept.items():
            setattr(module, name, value)


def compare(
    name: str,
    config: Mapping[str, Any],
    *,
    steps: int,
    double: bool = True,
    eta: float = 0.0,
    timesteps: Sequence[int] | None = None,
    sigmas: Sequence[float] | None = None,
    seed: int = 0,
    limit: float | None = None,
) -> tuple[Schedule, float]:
    """Run both and return our schedule and the largest |difference| / max|x| over all steps.

    Asserts on the way that timesteps are equal and that every step agrees: to 1e-9 with both sides
    in float64, to 1e-5 with both in float32 and diffusers untouched.
    """
    with quiet(), exact_roots() if double else nullcontext():
        scheduler = diffusers_scheduler(name, config)
        if timesteps is not None:
            scheduler.set_timesteps(timesteps=list(timesteps))
        elif sigmas is not None:
            scheduler.set_timesteps(sigmas=list(sigmas))
        else:
            scheduler.set_timesteps(steps)
    if hasattr(scheduler, "set_begin_index"):
        # Without it diffusers starts one step late where the first timestep occurs twice.
        scheduler.set_begin_index(0)
    ours = build_schedule(name, config, steps=steps, eta=eta, timesteps=timesteps, sigmas=sigmas)
    theirs = scheduler.timesteps.double().numpy()
    assert ours.timesteps.shape == theirs.shape
    if double or not scheduler.timesteps.is_floating_point():
        assert ours.timesteps.tolist() == theirs.tolist(), "timesteps differ"
    else:  # found from sigmas, whose last bit depends on the CPU
        assert np.allclose(ours.timesteps, theirs, rtol=1e-6, atol=1e-3), "timesteps differ"
    assert np.isclose(ours.init_noise_sigma, float(scheduler.init_noise_sigma), rtol=1e-6)

    rng = np.random.default_rng(seed)
    predict = network(seed)
    dtype = np.float64 if double else np.float32
    limit = limit or (1e-9 if double else 1e-5)
    x0 = rng.standard_normal(SHAPE) * ours.init_noise_sigma
    noises = rng.standard_normal((ours.evaluations, *SHAPE))
    state = np.zeros((ours.history + 1, *SHAPE), dtype)
    state[0] = x0
    x = torch.from_numpy(x0.astype(dtype))
    extra = {"eta": eta} if name == "ddim" else {}
    worst = 0.0
    with stepping(scheduler, iter(noises), double=double):
        for i, t in enumerate(scheduler.timesteps):
            # Both are fed the output for *their own* sample.
            scaled = scheduler.scale_model_input(x, t)
            out = torch.from_numpy(predict(scaled.numpy(), float(t)).astype(dtype))
            # An int keeps LCM's boundary factors out of float32.
            told = int(t) if double and name == "lcm" else t
            x = scheduler.step(out, told, x, **extra).prev_sample
            own = predict(state[0] * dtype(ours.input_scale[i]), ours.timesteps[i]).astype(dtype)
            state = ours.apply(i, state, own, noises[i])
            assert state.dtype == dtype
            assert x.dtype == out.dtype
            error = float(np.abs(state[0] - x.numpy()).max() / max(np.abs(x.numpy()).max(), 1e-3))
            worst = max(worst, error)
            assert np.isfinite(state).all(), f"{name}: not finite at step {i}"
            assert error <= limit, f"{name}: step {i} (t={float(t)}) differs by {error:.2e}"
    return ours, worst
