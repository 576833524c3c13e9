"""The machine, its card, and the libraries that could use it."""

from __future__ import annotations

import importlib.util
from importlib import metadata
from typing import Any

from sld_edge.bench.card.child import Tell
from sld_edge.bench.card.report import DRY
from sld_edge.bench.card.settings import Settings
from sld_edge.bench.gpu_check.backends import backends
from sld_edge.bench.machine import describe_machine
from sld_edge.bench.nvml import cards
from sld_edge.engines.cuda.present import present_device
from sld_edge.errors import EngineError, MissingDependency

#: Distributions whose names begin so belong to the card.
_PREFIXES = ("nvidia-", "tensorrt", "cuda-", "onnxruntime", "torch", "triton", "diffusers")


def machine(settings: Settings, tell: Tell) -> None:
    """Facts, and ``no_card`` with the reason where nothing could be measured."""
    found: dict[str, Any] = {"machine": describe_machine()}
    seen = cards()
    found["nvml"] = seen if isinstance(seen, str) else [card.facts() for card in seen]
    found["packages"] = _packages()
    if settings.dry_run:
        found["device"] = DRY
    else:
        found |= _device()
    tell.found(found)
    tell.say("asking the libraries for the card")
    found["libraries"] = {one.name: one.unavailable() or "found" for one in backends()}
    tell.found(found)


def _device() -> dict[str, Any]:
    """The CUDA device by its driver, else by torch; or why there is none."""
    try:
        device = present_device()
        return {"device": f"{device.label}, CUDA driver {device.driver}"}
    except MissingDependency as error:
        if importlib.util.find_spec("torch") is None:
            return {"device": "none", "no_card": error.what}
        import torch

        if not torch.cuda.is_available():
            return {"device": "none", "no_card": f"{error.what}, and torch sees no CUDA device"}
        return {"device": f"{torch.cuda.get_device_name()}, by torch {torch.__version__}"}
    except EngineError as error:
        return {"device": "none", "no_card": error.what}


def _packages() -> dict[str, str]:
    pairs = ((str(one.name), one.version) for one in metadata.distributions())
    return {name: version for name, version in sorted(pairs) if name.lower().startswith(_PREFIXES)}
