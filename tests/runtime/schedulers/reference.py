"""Runs a diffusers scheduler and our table side by side, on the same network and the same noise."""

from __future__ import annotations

import copy
import importlib
import json
import sys
import types
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
    "tcd": "TCDScheduler",
    "ddpm": "DDPMScheduler",
    "heun": "HeunDiscreteScheduler",
    "kdpm2": "KDPM2DiscreteScheduler",
    "kdpm2_ancestral": "KDPM2AncestralDiscreteScheduler",
    "dpmpp_sde": "DPMSolverSDEScheduler",
    "dpmpp_2s": "DPMSolverSinglestepScheduler",
    "deis": "DEISMultistepScheduler",
    "edm_euler": "EDMEulerScheduler",
    "edm_dpmpp_2m": "EDMDPMSolverMultistepScheduler",
}
#: Those that predict no data: their diffusers classes refuse ``prediction_type`` "sample".
NO_DATA = ("pndm", "euler_ancestral", "kdpm2", "dpmpp_sde", "edm")
#: Steps of more float32 operations than one: diffusers' own rounding grows with them.
LONG = ("heun", "kdpm2", "dpmpp_3", "dpmpp_sde", "edm")
#: What a name adds to the checkpoint's configuration.
ADDED: dict[str, dict[str, Any]] = {
    "_karras": {"use_karras_sigmas": True},
    "_exponential": {"use_exponential_sigmas": True},
    "_beta": {"use_beta_sigmas": True},
    "_lu": {"use_lu_lambdas": True},
    "_sde": {"algorithm_type": "sde-dpmsolver++"},
}


@contextmanager
def quiet() -> Iterator[None]:
    """Hold back warnings about diffusers' own code."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="__array__ implementation")
        warnings.filterwarnings("ignore", message="__array_wrap__ must accept")
        warnings.filterwarnings("ignore", message="algorithm_type .* is deprecated")
        yield


def class_of(name: str) -> Any:
    """A diffusers scheduler class. DPM++ SDE's imports a package that only its noise needs, which tests replace."""
    if name != "DPMSolverSDEScheduler":
        return getattr(diffusers, name)
    sys.modules.setdefault("torchsde", types.ModuleType("torchsde"))
    return importlib.import_module(
        "diffusers.schedulers.scheduling_dpmsolver_sde"
    ).DPMSolverSDEScheduler


@contextmanager
def short_tables(*classes: Any) -> Iterator[None]:
    """Constructors set their timesteps at once, one for each of a thousand in training; four are enough until told."""

    def short(own: Any) -> Any:
        return lambda self, steps, *more, **named: own(self, min(steps, 4), *more, **named)

    kept = {one: one.set_timesteps for one in classes}
    try:
        for one, own in kept.items():
            one.set_timesteps = short(own)
        yield
    finally:
        for one, own in kept.items():
            one.set_timesteps = own


#: LMS' coefficients, by what they are computed from: an integral each, the same for every kind of prediction.
_coefficients: dict[tuple[Any, ...], float] = {}


@contextmanager
def coefficients_once(scheduler: Any) -> Iterator[None]:
    """Let LMS integrate each of its coefficients once for all configurations."""
    own = getattr(scheduler, "get_lms_coefficient", None)
    if own is None:
        yield
        return

    def coefficient(order: int, t: int, current_order: int) -> float:
        seen = scheduler.sigmas[t - order + 1 : t + 2]
        key = (order, current_order, seen.dtype, *seen.tolist())
        if key not in _coefficients:
            _coefficients[key] = own(order, t, current_order)
        return _coefficients[key]

    scheduler.get_lms_coefficient = coefficient
    try:
        yield
    finally:
        del scheduler.get_lms_coefficient


def diffusers_scheduler(name: str, config: Mapping[str, Any]) -> Any:
    """The diffusers scheduler as the reference pipeline would hold it."""
    added: dict[str, Any] = {}
    for suffix, settings in ADDED.items():
        if name.endswith(suffix) and name not in CLASSES:
            name = name.removesuffix(suffix)
            added |= settings
    if "_3" in name:
        name = name.replace("_3", "_2")
        added["solver_order"] = 3
    first, second = class_of(config["_class_name"]), class_of(CLASSES[name])
    with quiet(), short_tables(*{first, second}):
        own = first.from_config(dict(config))
        scheduler = second.from_config(own.config, **added)
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
def exact_functions() -> Iterator[None]:
    """Correctly rounded float32 roots, powers, logarithms and exponentials in torch.

    Its own depend on the CPU in the last bit.
    """
    kept = {name: getattr(torch.Tensor, name) for name in ("__pow__", "sqrt", "log", "exp", "lerp")}

    def rounded(x: torch.Tensor, function: Any) -> torch.Tensor:
        with np.errstate(all="ignore"):
            return torch.from_numpy(np.asarray(function(x.double().numpy()))).to(x.dtype)

    def exact(name: str, function: Any) -> Any:
        def method(x: torch.Tensor, *more: Any) -> torch.Tensor:
            if x.dtype != torch.float32:
                return kept[name](x, *more)
            return rounded(x, lambda values: function(values, *more))

        return method

    def middle(x: torch.Tensor, end: torch.Tensor, weight: float) -> torch.Tensor:
        return end - (end - x) * (1 - weight)

    torch.Tensor.__pow__ = exact("__pow__", np.power)
    torch.Tensor.sqrt = exact("sqrt", np.sqrt)
    torch.Tensor.log = exact("log", np.log)
    torch.Tensor.exp = exact("exp", np.exp)
    torch.Tensor.lerp = middle
    try:
        yield
    finally:
        for name, method in kept.items():
            setattr(torch.Tensor, name, method)


class Noises:
    """Unit Gaussian noise, one array for each evaluation; ``at`` is the evaluation that is being made."""

    def __init__(self, arrays: NDArray[Any]) -> None:
        self._arrays = arrays
        self.at = 0

    def __call__(self, *_: Any, dtype: torch.dtype = torch.float64, **__: Any) -> torch.Tensor:
        return torch.from_numpy(self._arrays[self.at]).to(dtype)

    def brownian(self, sample: torch.Tensor, *_: Any) -> Any:
        """Increments of one Brownian motion over σ, the second evaluation's containing the first's."""

        def increment(start: Any, stop: Any) -> torch.Tensor:
            fresh = self(dtype=sample.dtype)
            if self.at % 2 == 0:
                self._half = float(abs(start - stop))
                return fresh
            shared = self._half / float(abs(start - stop))
            before = torch.from_numpy(self._arrays[self.at - 1]).to(sample.dtype)
            return shared**0.5 * before + (1 - shared) ** 0.5 * fresh

        return increment


_CONSTANTS = (
    "alphas_cumprod",
    "final_alpha_cumprod",
    "sigmas",
    "sigmas_interpol",
    "sigmas_up",
    "sigmas_down",
)


@contextmanager
def stepping(scheduler: Any, noises: Noises, *, double: bool) -> Iterator[None]:
    """Give ``scheduler`` our noise, and in double precision its constants as float64.

    Only the arithmetic of ``step`` becomes float64; timesteps, alphas and sigmas keep the values
    that the scheduler computed in float32.
    """
    module = importlib.import_module(type(scheduler).__module__)
    replaced = {"randn_tensor": noises, "BrownianTreeNoiseSampler": noises.brownian}
    if double:
        replaced["torch"] = _Float64Torch()
    kept = {name: getattr(module, name) for name in replaced if hasattr(module, name)}
    try:
        for name in kept:
            setattr(module, name, replaced[name])
        for attribute in _CONSTANTS if double else ():
            if hasattr(scheduler, attribute):
                setattr(scheduler, attribute, getattr(scheduler, attribute).double())
        yield
    finally:
        for name, value in kept.items():
            setattr(module, name, value)


#: The scheduler of the latest configuration, untouched.
_made: dict[tuple[str, str, bool], Any] = {}


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
    in float64, to 2e-5 (2e-4 on a curve of sigmas, more where a step is long) with both in float32
    and diffusers untouched.
    """
    with quiet(), exact_functions() if double else nullcontext():
        key = (name, json.dumps(config, sort_keys=True), double)
        if key not in _made:
            _made.clear()  # a grid goes through one configuration after the other
            _made[key] = diffusers_scheduler(name, config)
        scheduler = copy.deepcopy(_made[key])
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
    if double and name.endswith(
        "_beta"
    ):  # quantiles of another library, right to the last digit or two
        assert np.allclose(ours.timesteps, theirs, rtol=1e-10, atol=1e-9), "timesteps differ"
    elif double or not scheduler.timesteps.is_floating_point():
        assert ours.timesteps.tolist() == theirs.tolist(), "timesteps differ"
    else:  # found from sigmas, whose last bit depends on the CPU
        assert np.allclose(ours.timesteps, theirs, rtol=1e-6, atol=1e-3), "timesteps differ"
    assert np.isclose(ours.init_noise_sigma, float(scheduler.init_noise_sigma), rtol=1e-6)

    rng = np.random.default_rng(seed)
    predict = network(seed)
    dtype = np.float64 if double else np.float32
    # A curve of sigmas is found from the other end: in float32 its last bits depend on the processor (the most seen
    # on three of them: 1.2e-4), and a step of many operations adds its own. What the tables are is judged in float64.
    # Third differences over neighbours that lie as close as a beta curve's ends lose more.
    if name.startswith("dpmpp_3") and name.endswith("_beta"):
        single = 1e-2
    elif name.startswith(LONG):
        single = 3e-4
    else:
        single = 2e-4 if name.endswith(tuple(ADDED)) else 2e-5
    limit = limit or (1e-9 if double else single)
    x0 = rng.standard_normal(SHAPE) * ours.init_noise_sigma
    noises = rng.standard_normal((ours.evaluations, *SHAPE))
    given = Noises(noises)
    state = np.zeros((ours.history + 1, *SHAPE), dtype)
    state[0] = x0
    x = torch.from_numpy(x0.astype(dtype))
    extra = {"eta": eta} if name in ("ddim", "tcd") else {}
    worst = 0.0
    with stepping(scheduler, given, double=double), coefficients_once(scheduler):
        for i, t in enumerate(scheduler.timesteps):
            given.at = i
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
