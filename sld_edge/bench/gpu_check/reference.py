"""What the CPU computes, graph by graph and as a whole: what a card is compared with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sld_edge.bench.gpu_check.steps import ErringObserver, Trace, traced
from sld_edge.bundle import Bundle
from sld_edge.engines.base import Engine, EngineOptions
from sld_edge.engines.load import load
from sld_edge.kinds import FEWEST_ROWS
from sld_edge.manifest import Graph, GraphKind, Shape
from sld_edge.runtime.arguments import CallArguments
from sld_edge.runtime.call import prepare_call
from sld_edge.runtime.context import ContextEncoder
from sld_edge.runtime.observe import UNOBSERVED
from sld_edge.runtime.pipeline import SafePipeline
from sld_edge.runtime.plan import tables_for
from sld_edge.runtime.safety import PRESETS
from sld_edge.runtime.schedulers import build_schedule
from sld_edge.runtime.steering import steer
from sld_edge.runtime.tokenize import Tokenizer

_CPU = EngineOptions(backend="onnxruntime", provider="cpu")
_PROMPT = "a photograph of a lighthouse on a rocky coast"
_SEED = 20221109

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True, kw_only=True)
class GraphCase:
    """One graph with inputs as a run has them, and what the CPU makes of them."""

    graph: Graph
    inputs: Arrays
    outputs: Arrays


def call_of(shape: Shape, steps: int) -> dict[str, Any]:
    """The call that is compared as a whole: SLD from the first step on."""
    return {
        "prompt": _PROMPT,
        "height": shape.height,
        "width": shape.width,
        "num_images_per_prompt": shape.batch,
        "num_inference_steps": steps,
        "safety": "max",
        "seed": _SEED,
        "output_type": "np",
        "progress": False,
    }


def trace_on_cpu(bundle: Bundle, call: dict[str, Any], *, error: float = 0.0) -> Trace:
    """A whole run on the CPU; with an error, every evaluation of the network is off by so much, relative to it."""
    observer = ErringObserver(error) if error else UNOBSERVED
    with SafePipeline.from_pretrained(
        bundle.path, _CPU, digest=bundle.digest, observer=observer
    ) as pipe:
        return traced(pipe, call, whole_pictures)


def whole_pictures(pipe: SafePipeline, call: dict[str, Any]) -> Any:
    """The pictures of a call with those that the safety head flagged, where the policy gives them out.

    Black on both sides would make any two pictures equal.
    """
    output = pipe(**call)
    pictures = np.array(output.images)
    for index, unsafe in enumerate(output.unsafe_images or ()):
        if unsafe is not None:
            pictures[index] = unsafe
    return pictures


def cases_on_cpu(bundle: Bundle, shape: Shape) -> Iterator[GraphCase]:
    """Every graph of one size, each fed with what the graph before it gave on the CPU."""
    rng = np.random.default_rng(_SEED)
    model = bundle.manifest.model
    factor = model.vae_scale_factor
    latents = (shape.batch, model.latent_channels, shape.height // factor, shape.width // factor)

    def normal(*sizes: int) -> NDArray[np.float32]:
        return rng.standard_normal(sizes, np.float32)

    def case(kind: GraphKind, inputs: Arrays) -> GraphCase:
        graph = bundle.graph(kind, height=shape.height, width=shape.width)
        with load(bundle, graph, _CPU) as engine:
            return GraphCase(graph=graph, inputs=inputs, outputs=engine.run(inputs))

    asked = {key: value for key, value in call_of(shape, 2).items() if key != "progress"}
    ids = prepare_call(bundle, Tokenizer(bundle), CallArguments(**asked)).ids
    yield case("text", {"input_ids": np.ascontiguousarray(ids[1, :1])})

    text = bundle.graph("text")

    @contextmanager
    def use() -> Iterator[Engine]:
        with load(bundle, text, _CPU) as engine:
            yield engine

    unet = case(
        "unet",
        {
            "latents": normal(*latents),
            "input_scale": np.ones(1, np.float32),
            "timestep": np.full(1, 500.0, np.float32),
            **ContextEncoder(text, use).encode(ids),
        },
    )
    yield unet
    schedule = build_schedule(None, bundle.manifest.scheduler, steps=10)
    steering = steer(schedule, None, PRESETS["max"], guidance_scale=7.5, method="sld")
    graph = bundle.graph("advance")
    tables = tables_for(schedule, steering, graph)
    advance = {
        "state": normal(schedule.history + 1, *latents),
        "momentum": normal(*latents),
        "noise": normal(*latents),
        "matrix": tables["matrix"][-1],
        "settings": tables["settings"][-1],
    }
    if any(port.name == "strength" for port in graph.inputs):
        advance["strength"] = np.zeros((1, latents[0]), np.float32)
    yield case("advance", {"noise_pred": unet.outputs["noise_pred"][:FEWEST_ROWS], **advance})
    decode = case("decode", {"latents": normal(1, *latents[1:])})
    yield decode
    if bundle.manifest.safety.head:
        yield case("safety", {"images": decode.outputs["images"]})
