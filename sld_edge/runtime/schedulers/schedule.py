"""A scheduler as plain data: timesteps, input scales and one small matrix a network evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sld_edge.errors import InvalidInput
from sld_edge.runtime.schedulers.names import scheduler_names
from sld_edge.runtime.schedulers.request import checked_request
from sld_edge.runtime.schedulers.settings import resolve_settings

__all__ = ["Schedule", "build_schedule", "scheduler_names"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Schedule:
    """A scheduler's whole run: N network evaluations over a state of the sample and k memories.

    One evaluation, S being the state [x, h₁ … h_k] and e the guided network output::

        e  = network(x · input_scale[i], timesteps[i])
        S' = matrices[i] · [S; e];  x' += noise_scale[i] · z      z a fresh unit gaussian

    The state starts as [unit gaussian · init_noise_sigma, 0 …]; the final x' is the latent.

    Attributes:
        name: Canonical name, e.g. ``"pndm"``.
        timesteps: [N] what the network is told at each evaluation, that is the noise level of that evaluation.
            Falling or standing (they rise by roundings of less than one only), not always whole, and a quarter
            of log σ for EDM's schedulers and Euler's continuous ones.
        input_scale: [N] factor on the sample before the network.
        matrices: [N, k+1, k+2] see above.
        noise_scale: [N] standard deviation of the noise added to the sample; 0 where none is.
        init_noise_sigma: Standard deviation of the first sample.
        steps: Number of inference steps asked for (N differs for PNDM and where a step evaluates twice).
        config: What was resolved, JSON-able, for the record. ``forced`` in it lists settings
            changed against the checkpoint.
    """

    name: str
    timesteps: NDArray[np.float64]
    input_scale: NDArray[np.float64]
    matrices: NDArray[np.float64]
    noise_scale: NDArray[np.float64]
    init_noise_sigma: float
    steps: int
    config: dict[str, Any]

    @property
    def evaluations(self) -> int:
        """N, how often the network runs."""
        return len(self.timesteps)

    @property
    def history(self) -> int:
        """k, how many arrays the state holds besides the sample."""
        return int(self.matrices.shape[1]) - 1

    @property
    def stochastic(self) -> bool:
        """Whether any evaluation adds fresh noise."""
        return bool(self.noise_scale.any())

    def apply(
        self,
        i: int,
        state: NDArray[Any],
        model_output: NDArray[Any],
        noise: NDArray[Any] | None = None,
    ) -> NDArray[Any]:
        """The state after evaluation ``i``.

        Args:
            i: Evaluation, 0 … N−1.
            state: [k+1, …], row 0 the sample.
            model_output: […] the (guided) network output for that sample.
            noise: […] unit gaussian; needed where ``noise_scale[i]`` is not 0, unused elsewhere.

        Returns:
            [k+1, …], of the state's dtype.

        Raises:
            InvalidInput: Noise is needed and missing.
        """
        known = np.concatenate([state, model_output[None]]).astype(state.dtype, copy=False)
        moved = np.tensordot(self.matrices[i].astype(state.dtype), known, axes=1)
        if self.noise_scale[i] != 0.0:
            if noise is None:
                raise InvalidInput(f"scheduler {self.name} needs noise", value=noise)
            moved[0] += (self.noise_scale[i] * noise).astype(state.dtype)
        return np.asarray(moved)


def build_schedule(
    name: str | None,
    config: Mapping[str, Any],
    *,
    steps: int | None = None,
    eta: float = 0.0,
    timesteps: Sequence[int | float] | None = None,
    sigmas: Sequence[float] | None = None,
) -> Schedule:
    """Compute the table of a run.

    Args:
        name: A scheduler of ``scheduler_names()``, a diffusers class name or a common label such as
            "DPM++ 2M Karras"; ``None`` for the checkpoint's own.
        config: The checkpoint's ``scheduler_config.json``.
        steps: Number of inference steps, 1 … num_train_timesteps (LCM and TCD: … original_inference_steps);
            None takes 50, or the most there is. Ignored if timesteps or sigmas are given.
        eta: η of DDIM and γ of TCD, 0 (deterministic) … 1. Other schedulers ignore it.
        timesteps: Visit these instead (falling), where the scheduler can.
        sigmas: Visit these instead (falling, the last one is where the run ends, usually 0); Euler
            only.

    Raises:
        InvalidInput: Unknown scheduler, a value outside sense, or an unsupported option.
    """
    resolved = resolve_settings(name, config)
    request = checked_request(resolved, steps=steps, eta=eta, timesteps=timesteps, sigmas=sigmas)
    with np.errstate(all="ignore"):
        table = resolved.family.table(resolved.settings, request)
    if not all(np.isfinite(array).all() for array in table):
        raise InvalidInput(
            f"scheduler {resolved.name} has no finite solution for these settings",
            value=request.steps,
            hint="use fewer steps or another spacing; zero terminal SNR needs v_prediction",
        )
    for array in table[:4]:
        array.setflags(write=False)
    record = resolved.record()
    if resolved.family.takes_eta:
        record["eta"] = request.eta
    for key in ("timesteps", "sigmas"):
        given = getattr(request, key)
        if given is not None:
            record[key] = given.tolist()
    return Schedule(
        name=resolved.name,
        timesteps=table.timesteps,
        input_scale=table.input_scale,
        matrices=table.matrices,
        noise_scale=table.noise_scale,
        init_noise_sigma=float(table.init_noise_sigma),
        steps=request.steps,
        config=record,
    )
