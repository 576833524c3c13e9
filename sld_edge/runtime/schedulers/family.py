"""What describes a scheduler family, and what its tables are computed from.

A family is one diffusers scheduler class. A checkpoint's ``scheduler_config.json`` is written by diffusers, so the
*interface* of the class (which keys it reads, and what it assumes for a missing one) is part of the file format. A
:class:`Family` records that interface beside the function that computes the table; each stands in its solver's module,
and :mod:`sld_edge.runtime.schedulers.families` lists them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from sld_edge.runtime.schedulers.curves import SUFFIXES
from sld_edge.runtime.schedulers.table import Table

#: Keys of the file that several classes read.
BETAS: Final = frozenset(
    {"num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas"}
)
UNSPACED: Final = BETAS | {"prediction_type"}
COMMON: Final = UNSPACED | {"timestep_spacing", "steps_offset"}
SIGMA_CURVES: Final = frozenset(
    {
        "use_karras_sigmas",
        "use_exponential_sigmas",
        "use_beta_sigmas",
        "sigma_min",
        "sigma_max",
    }
)
SOLVER: Final = frozenset(
    {
        "solver_order",
        "solver_type",
        "lower_order_final",
        "thresholding",
        "use_flow_sigmas",
        "use_dynamic_shifting",
    }
)
#: What k-diffusion's samplers assume of a noise schedule.
K_BETAS: Final[Mapping[str, Any]] = {"beta_start": 0.00085, "beta_end": 0.012}
#: Predictions of classes that cannot work with x₀.
NO_DATA: Final = frozenset({"epsilon", "v_prediction"})
CURVES: Final = ("karras", "exponential", "beta")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything a table is computed from, but for the request. A family reads the fields that concern it."""

    num_train_timesteps: int = 1000
    beta_start: float = 0.0001
    beta_end: float = 0.02
    beta_schedule: str = "linear"
    trained_betas: tuple[float, ...] | None = None
    prediction_type: str = "epsilon"
    timestep_spacing: str = "linspace"
    steps_offset: int = 0
    rescale_betas_zero_snr: bool = False
    clip_sample: bool = False
    set_alpha_to_one: bool = False
    skip_prk_steps: bool = False
    interpolation_type: str = "linear"
    timestep_type: str = "discrete"
    use_karras_sigmas: bool = False
    use_exponential_sigmas: bool = False
    use_beta_sigmas: bool = False
    use_lu_lambdas: bool = False
    sigma_min: float | None = None
    sigma_max: float | None = None
    final_sigmas_type: str = "zero"
    solver_order: int = 2
    solver_type: str = "midpoint"
    algorithm_type: str = "dpmsolver++"
    lower_order_final: bool = True
    euler_at_final: bool = False
    lambda_min_clipped: float = -math.inf
    predict_x0: bool = True
    disable_corrector: tuple[int, ...] = ()
    original_inference_steps: int = 50
    timestep_scaling: float = 10.0
    variance_type: str = "fixed_small"
    sigma_data: float = 0.5
    sigma_schedule: str = "karras"
    rho: float = 7.0

    @property
    def curve(self) -> str:
        """Suffix of the curve of sigmas that is followed, empty where levels are spaced by timestep."""
        return next((suffix for key, suffix in SUFFIXES.items() if getattr(self, key)), "")


@dataclass(frozen=True, kw_only=True)
class Request:
    """How many steps, how much DDIM noise, and the levels to visit if the caller names them."""

    steps: int
    eta: float
    timesteps: NDArray[np.float64] | None
    sigmas: NDArray[np.float64] | None


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A family under another name, with some of its settings fixed.

    Attributes:
        name: Canonical name, e.g. ``"dpmpp_2m_sde"``.
        label: As other interfaces call it.
        settings: What the name asks for.
        aliases: Further names.
    """

    name: str
    label: str
    settings: Mapping[str, Any]
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, eq=False)
class Family:
    """One diffusers scheduler class as a checkpoint file sees it, and the table that stands for it.

    Attributes:
        name: Our canonical name without a suffix such as ``_karras`` or ``_sde``.
        class_name: The diffusers class.
        label: As other interfaces call it.
        table: Computes the table of a run.
        keys: Settings of the file that the class reads.
        fewest_steps: Fewest steps under a policy with a minimum, as measured (docs/safety.md).
        aliases: Further names.
        variants: The same under other names.
        spelled: The canonical name without a curve that settings stand for; :attr:`name` where it is left out.
        defaults: Where its default differs from the one in :class:`Settings`.
        predictions: ``prediction_type`` values it can work with.
        curves: Curves of sigmas that it has, which are suffixes of its name.
        custom: What it takes instead of a step count: ``timesteps``, ``sigmas`` or neither.
        fractional: Whether timesteps that a caller chooses may lie between those of the training.
        solver_types, algorithms: Values of ``solver_type`` and ``algorithm_type`` that the class takes for its own.
        siblings: What the class makes of a sibling's ``solver_type`` or ``algorithm_type``; others are errors.
        no_third_order: Algorithms that have no step of third order.
        takes_eta: Whether ``eta`` says something.
        reads_variance: Whether a fixed ``variance_type`` says something.
        in_training: Whether a leading spacing that starts past the training schedule is an error: nothing is
            interpolated there.
        few_step: Whether it goes to the picture at every evaluation and adds noise again, made for few of them.
        preconditioned: Whether it is for checkpoints trained with EDM's preconditioning.
    """

    name: str
    class_name: str
    label: str
    table: Callable[[Settings, Request], Table]
    keys: frozenset[str]
    fewest_steps: int
    aliases: tuple[str, ...] = ()
    variants: tuple[Variant, ...] = ()
    spelled: Callable[[Settings], str] | None = None
    defaults: Mapping[str, Any] = field(default_factory=dict)
    predictions: frozenset[str] = frozenset({"epsilon", "v_prediction", "sample"})
    curves: tuple[str, ...] = ()
    custom: frozenset[str] = frozenset()
    fractional: bool = False
    solver_types: tuple[str, ...] = ()
    algorithms: tuple[str, ...] = ()
    siblings: Mapping[str, str] = field(default_factory=dict)
    no_third_order: frozenset[str] = frozenset()
    takes_eta: bool = False
    reads_variance: bool = False
    in_training: bool = False
    few_step: bool = False
    preconditioned: bool = False

    def name_of(self, settings: Settings) -> str:
        """The canonical name of these settings, e.g. ``"dpmpp_2m_sde_karras"``."""
        name = self.name if self.spelled is None else self.spelled(settings)
        return f"{name}_{settings.curve}" if settings.curve else name

    def translated(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Solver names of a sibling class, mapped the way the diffusers class maps them."""
        return {
            key: self.siblings[value]
            for key in ("solver_type", "algorithm_type")
            if isinstance(value := values.get(key), str) and value in self.siblings
        }
