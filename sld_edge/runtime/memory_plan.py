"""How much memory a run takes, stage by stage, before anything is loaded: plain data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from sld_edge.bundle import Bundle
from sld_edge.engines.activations import activation_bytes
from sld_edge.engines.onnx_shapes import read_onnx
from sld_edge.engines.tensorrt.summaries import summary_for
from sld_edge.errors import InvalidInput
from sld_edge.kinds import FEWEST_ROWS
from sld_edge.manifest import Graph, GraphKind
from sld_edge.plain import plain_text, whole_number
from sld_edge.runtime.plan import Plan, build_plan
from sld_edge.runtime.safety import PRESETS
from sld_edge.runtime.schedulers import build_schedule
from sld_edge.runtime.steering import steer, steering_off

MemoryMode = Literal["normal", "low"]
MEMORY_MODES: tuple[MemoryMode, ...] = ("normal", "low")
#: Memory of common boards in GB of 10⁹ bytes.
BOARDS = (8, 16, 32, 64)
#: Kept free for the system, the CUDA context, the libraries' code and Python. An assumption, not a measurement.
RESERVE = 2_500_000_000
#: What a run takes does not depend on the guidance scale.
_ANY_SCALE = 7.5

#: Pictures of a call, or branches of the denoiser, that a plan is made for.
MOST_ROWS = 4096

_ENGINE = "engine"
_ESTIMATE = "estimate"


class StageMemory(msgspec.Struct, frozen=True, kw_only=True):
    """One stage, in bytes.

    Args:
        name: ``text``, ``denoise``, ``decode`` or ``safety``.
        weights: Of its networks, from the sizes of the bundle's files or from the engine's summary.
        activations: Scratch memory of its networks.
        buffers: Arrays that the runtime hands from network to network.
        source: ``engine`` where the activations are those that a built engine states, ``estimate`` where they
            were computed from the graph.
    """

    name: str
    weights: int
    activations: int
    buffers: int
    source: str

    @property
    def total(self) -> int:
        """All three together."""
        return self.weights + self.activations + self.buffers


class MemoryPlan(msgspec.Struct, frozen=True, kw_only=True):
    """Memory of a run in bytes; activations are estimates unless a stage says that an engine states them.

    Args:
        height, width: Pixels.
        batch: Images at once.
        branches: Rows of the denoiser, 2 + the number of safety concepts.
        steps: Denoising steps.
        precision: The bundle's, ``fp32`` or ``fp16``.
        memory: ``normal``: every network stays loaded. ``low``: one stage is loaded at a time.
        library: The engines' library, empty where no engine of the cache was taken.
        stages: ``text``, ``denoise``, ``decode`` and, where the bundle has a safety head, ``safety``.
    """

    height: int
    width: int
    batch: int
    branches: int
    steps: int
    precision: str
    memory: MemoryMode
    library: str
    stages: tuple[StageMemory, ...]

    @property
    def peak(self) -> int:
        """The most that is needed at once."""
        return self.peak_of(self.memory)

    def peak_of(self, memory: MemoryMode) -> int:
        """All stages together with ``memory="normal"``, the largest with ``"low"``.

        Raises:
            InvalidInput: ``memory`` is neither.
        """
        totals = [stage.total for stage in self.stages]
        return max(totals) if checked_memory(memory) == "low" else sum(totals)

    def smallest_board(self, memory: MemoryMode) -> int | None:
        """GB of the smallest board (8, 16, 32 or 64) that holds the peak and 2.5 GB for the system; None if none does.

        Raises:
            InvalidInput: ``memory`` is neither ``"normal"`` nor ``"low"``.
        """
        needed = self.peak_of(memory) + RESERVE
        return next((gb for gb in BOARDS if needed <= gb * 10**9), None)

    def to_dict(self) -> dict[str, Any]:
        """The plan for a script, with what follows from it."""
        return {
            **msgspec.to_builtins(self),
            "peak": self.peak,
            "peaks": {mode: self.peak_of(mode) for mode in MEMORY_MODES},
            "reserve": RESERVE,
            "smallest_board_gb": {mode: self.smallest_board(mode) for mode in MEMORY_MODES},
        }

    def lines(self) -> list[str]:
        """A table for a person, in MB of 10⁶ bytes."""
        head = f"{self.height}x{self.width}, batch {self.batch}, {self.branches} branches, "
        head += f"{self.steps} steps, {self.precision}"
        rows = [head, f"{'MB':<9}{'weights':>10}{'activations':>14}{'buffers':>10}{'sum':>10}"]
        for stage in self.stages:
            mark = " " if stage.source == _ENGINE else "~"
            rows.append(
                f"{stage.name:<9}{_mb(stage.weights):>10}{mark + _mb(stage.activations):>14}"
                f"{_mb(stage.buffers):>10}{_mb(stage.total):>10}"
            )
        for mode in MEMORY_MODES:
            what = "one stage at a time" if mode == "low" else "all loaded"
            board = self.smallest_board(mode)
            fits = f"fits {board} GB" if board else f"too much for {BOARDS[-1]} GB"
            title = f"peak with memory={mode}, {what}"
            rows.append(f"{title:<43}{_mb(self.peak_of(mode)):>10}  {fits}")
        rows.append(
            f"of {', '.join(map(str, BOARDS))} GB boards, with {RESERVE / 1e9:.1f} GB kept for the system"
            " (assumed)"
        )
        if any(stage.source == _ESTIMATE for stage in self.stages):
            rows.append(
                "~ estimated from the graph, not measured; engines that fuse attention need less"
            )
        if self.library:
            rows.append(f"activations without ~: as the engines say that {self.library} built")
        return rows

    def __repr__(self) -> str:
        return "\n".join(self.lines())


def plan_memory(
    bundle: Bundle,
    *,
    height: int | None = None,
    width: int | None = None,
    batch: int | None = None,
    branches: int = FEWEST_ROWS,
    steps: int = 50,
    memory: str = "normal",
    library: str | None = None,
) -> MemoryPlan:
    """What a run with a bundle needs.

    Args:
        height, width: Pixels; the bundle's first size when left out.
        batch: Images at once; what the bundle was planned for when left out.
        branches: Rows of the denoiser: 3 is SLD, 2 + K has K concepts.
        steps: Denoising steps; they decide the size of the tables only.
        memory: ``"normal"`` or ``"low"``.
        library: Take activations from this library's engines in the bundle's cache where there are any;
            None takes any library's, an empty text none.

    Raises:
        InvalidInput: a size the bundle lacks, or a number out of range.
        BundleError: a graph is damaged.
    """
    manifest = bundle.manifest
    first = manifest.shapes[0]
    height = first.height if height is None else whole_number("height", height, low=1)
    width = first.width if width is None else whole_number("width", width, low=1)
    if batch is None:
        batch = next(
            (s.batch for s in manifest.shapes if (s.height, s.width) == (height, width)), 1
        )
    batch = whole_number("batch", batch, low=1, high=MOST_ROWS)
    branches = whole_number("branches", branches, low=2, high=MOST_ROWS)
    library = None if library is None else plain_text("library", library)
    mode = checked_memory(memory)
    loop = _loop(bundle, height, width, batch, branches, steps)
    sizes = _Sizes(bundle, height, width, {"N": 1, "R": branches, "B": batch}, library)
    buffers = {name: buffer.nbytes for name, buffer in loop.buffers}
    context = sum(buffer.nbytes for _, buffer in loop.buffers if buffer.role == "context")
    samples = buffers["momentum_0"]
    pixels = 3 * height * width
    unet = sizes.stage("denoise", "unet", buffers=sum(buffers.values()))
    advance = _weights(bundle, bundle.graph("advance"))
    one = _Sizes(bundle, height, width, {"B": 1}, library)
    stages = [
        sizes.stage("text", "text", buffers=context),
        msgspec.structs.replace(
            unet,
            weights=unet.weights + advance,
            # ``advance`` declares no shapes inside; its operands are its buffers, once more
            activations=unet.activations + 2 * (buffers["state_0"] + buffers["noise_pred"]),
        ),
        one.stage("decode", "decode", buffers=samples + batch * pixels),
    ]
    if manifest.safety.head:
        stages.append(one.stage("safety", "safety", buffers=batch * pixels))
    return MemoryPlan(
        height=height,
        width=width,
        batch=batch,
        branches=branches,
        steps=steps,
        precision=manifest.precision,
        memory=mode,
        library=sizes.library or one.library,
        stages=tuple(stages),
    )


def checked_memory(memory: str) -> MemoryMode:
    """The memory mode in that text.

    Raises:
        InvalidInput: it is none.
    """
    hint = f"use {', '.join(MEMORY_MODES)}"
    text = plain_text("memory", memory, hint)
    for mode in MEMORY_MODES:
        if text == mode:
            return mode
    raise InvalidInput("unknown memory mode", value=text, hint=hint)


class _Sizes:
    """Sizes of a bundle's graphs for one setting."""

    def __init__(
        self,
        bundle: Bundle,
        height: int,
        width: int,
        free: Mapping[str, int],
        library: str | None,
    ) -> None:
        self._bundle = bundle
        self._size = {"height": height, "width": width}
        self._free = free
        self._wanted = library
        self.library = ""

    def stage(self, name: str, kind: GraphKind, *, buffers: int) -> StageMemory:
        """The memory of one network."""
        graph = self._bundle.graph(kind, **self._size)
        found = None
        if self._wanted != "":
            found = summary_for(self._bundle, graph, self._free, library=self._wanted)
        if found is not None:
            self.library, summary = found
            return StageMemory(
                name=name,
                weights=summary.weights_bytes,
                activations=summary.activation_bytes,
                buffers=buffers,
                source=_ENGINE,
            )
        outside = frozenset(tensor.name for tensor in (*graph.inputs, *graph.outputs))
        file = read_onnx(self._bundle.file(graph.file))
        return StageMemory(
            name=name,
            weights=_weights(self._bundle, graph),
            activations=activation_bytes(file, self._free, outside=outside),
            buffers=buffers,
            source=_ESTIMATE,
        )


def _loop(bundle: Bundle, height: int, width: int, batch: int, branches: int, steps: int) -> Plan:
    model = bundle.manifest.model
    factor = model.vae_scale_factor
    schedule = build_schedule(None, bundle.manifest.scheduler, steps=steps)
    steering = steering_off(schedule, _ANY_SCALE)
    if branches >= FEWEST_ROWS:
        preset = PRESETS["max"]
        steering = steer(schedule, None, preset, guidance_scale=_ANY_SCALE, method="sld")
    return build_plan(
        bundle.graph("unet", height=height, width=width),
        bundle.graph("advance"),
        schedule=schedule,
        steering=steering,
        branches=branches,
        latent_shape=(batch, model.latent_channels, height // factor, width // factor),
    )


def _weights(bundle: Bundle, graph: Graph) -> int:
    """Bytes of a graph's weight files and of the graph itself, which holds the small constants."""
    files = bundle.manifest.files
    return sum(files[name].size for name in (graph.file, *graph.weights))


def _mb(size: int) -> str:
    return f"{size / 1e6:,.1f}"
