"""What every backend offers: recipe → acquire → bind → run → release."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from sld_edge.engines.info import EngineInfo, EngineNote
from sld_edge.errors import EngineError, InvalidInput
from sld_edge.manifest import Graph, Port, Precision
from sld_edge.plain import is_text, plain_text, whole_number

if TYPE_CHECKING:
    from sld_edge.engines.cuda.session import CudaSession

Arrays = Mapping[str, NDArray[Any]]
ComputePrecision = Literal["fp32", "bf16", "fp16", "int8"]
#: More than any machine has: a larger number is a typing error.
MOST_THREADS = 4096
COMPUTE_PRECISIONS: tuple[ComputePrecision, ...] = ("fp32", "bf16", "fp16", "int8")

_DTYPES: dict[str, type[np.generic]] = {
    "float32": np.float32,
    "float16": np.float16,
    "int64": np.int64,
    "int32": np.int32,
    "uint8": np.uint8,
    "bool": np.bool_,
}


@dataclass(frozen=True, kw_only=True)
class EngineOptions:
    """How graphs should be run; the same for every graph of a pipeline.

    Args:
        backend: ``"auto"`` or a backend's name (``"onnxruntime"``, ``"openvino"``, ``"tensorrt"``,
            ``"tensorrt-rtx"``).
        provider: ``"auto"`` or an execution provider: ``"cpu"``, ``"openvino"``, ``"cuda"``, ``"tensorrt"``,
            ``"tensorrt-rtx"``, ``"webgpu"``, ``"coreml"``, ``"dml"``, or the name of one that an installed plug-in or
            ONNX Runtime itself brings; the others are then not tried.
        compute_precision: The lowest precision arithmetic may use inside a graph. ``"fp32"`` keeps an fp32
            bundle in fp32; ``"bf16"``, ``"fp16"`` and ``"int8"`` are permissions, used where the hardware gains
            from it. ``"int8"`` needs a bundle that ``sld-calibrate`` made; what is not in 8 bits is in bf16 where
            the processor has it.
        threads: CPU threads inside one operator; 0 uses every core this process may keep busy.

    >>> from sld_edge import EngineOptions
    >>> EngineOptions.parse("onnxruntime:cpu", threads=2)
    EngineOptions(backend='onnxruntime', provider='cpu', compute_precision='fp32', threads=2)
    """

    backend: str = "auto"
    provider: str = "auto"
    compute_precision: ComputePrecision = "fp32"
    threads: int = 0

    def __post_init__(self) -> None:
        for name in ("backend", "provider", "compute_precision"):
            object.__setattr__(self, name, plain_text(name, getattr(self, name)))
        if self.compute_precision not in COMPUTE_PRECISIONS:
            raise InvalidInput(
                "unknown compute precision",
                value=self.compute_precision,
                hint=f"use {', '.join(COMPUTE_PRECISIONS)}",
            )
        threads = whole_number("threads", self.threads, low=0, high=MOST_THREADS)
        object.__setattr__(self, "threads", threads)

    @classmethod
    def parse(cls, engine: str | EngineOptions | None, **overrides: Any) -> EngineOptions:
        """Options from ``None``, an :class:`EngineOptions`, or ``"backend"`` / ``"backend:provider"``.

        Args:
            engine: One of these.
            overrides: ``compute_precision`` and ``threads``.

        Raises:
            InvalidInput: the name is empty, or an override says something else than the options that were given.
        """
        if issubclass(type(engine), EngineOptions):
            options = cls(**{field.name: getattr(engine, field.name) for field in fields(cls)})
            for name, value in vars(cls(**overrides)).items():
                if value not in (getattr(cls, name), getattr(options, name)):
                    raise InvalidInput(
                        f"{name} was given beside EngineOptions, which say another",
                        value=value,
                        hint=f"write EngineOptions({name}=…)",
                    )
            return options
        if engine is None:
            return cls(**overrides)
        if not is_text(engine):
            raise InvalidInput("engine is neither a name nor EngineOptions", value=engine)
        backend, _, provider = plain_text("engine", engine).strip().lower().partition(":")
        if not backend:
            raise InvalidInput("the engine's name is empty", value=engine, hint="leave it out")
        return cls(backend=backend, provider=provider or "auto", **overrides)


class GraphRefused(EngineError):
    """A backend cannot run this graph at all; another may."""


class Place(Hashable, Protocol):
    """Where arrays lie that engines bind; equal ones are one memory, in which engines run one after the other."""

    @property
    def kind(self) -> str:
        """What kind of memory it is: ``"host"``, ``"cuda"`` or another that the denoising loop has a memory for."""
        ...


@dataclass(frozen=True)
class HostPlace:
    """The host's memory."""

    kind: str = "host"


HOST = HostPlace()


class Engine(Protocol):
    """One graph on one backend. Building the object touches no device; ``with engine:`` acquires it."""

    @property
    def graph(self) -> Graph:
        """The graph this engine runs."""
        ...

    @property
    def info(self) -> EngineInfo:
        """What was chosen to run it and why; complete once acquired."""
        ...

    @property
    def places(self) -> Mapping[Place, Any]:
        """Where its arrays may lie, best first, and what binds them there; complete once acquired.

        At the host that is an :class:`Engine`, on a CUDA device a :class:`~sld_edge.engines.device.DeviceEngine`.
        """
        ...

    def __enter__(self) -> Engine: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

    def bind(
        self, inputs: Arrays, outputs: Arrays, *, constant: Collection[str] = ()
    ) -> Callable[[], None]:
        """Bind C-contiguous arrays once; each call of the result reads the inputs and fills the outputs.

        Args:
            inputs: Arrays to read.
            outputs: Arrays to fill.
            constant: Names of inputs whose contents stay as they are now: they may be copied here once.
        """
        ...

    def run(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        """Run once on arrays of any batch, with freshly allocated outputs."""
        ...

    def trim(self) -> None:
        """Give back memory that is needed only while the graph runs; the next run takes it again."""
        ...

    def sibling(self) -> Engine:
        """A loaded engine over the same weights, with buffers of its own, for another thread to use.

        Either may be released first.

        Raises:
            EngineError: it is not loaded, or what it runs on cannot be shared.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Where a graph's file lies and how it should be run."""

    graph: Graph
    file: Path
    #: The same graph rewritten for a backend, as backend name → file.
    variants: Mapping[str, Path]
    options: EngineOptions
    #: What the bundle stores the graph in.
    stored: Precision = "fp32"
    #: The weight files that the graph's file refers to.
    weights: tuple[Path, ...] = ()
    #: sha256 of the graph's file and of its weight files, by their names in the bundle.
    digests: Mapping[str, str] = field(default_factory=dict)
    cache: Path | None = None
    #: The CUDA device that a pipeline's engines share, for those that run on one; None is one of the engine's own.
    session: CudaSession | None = None
    #: Why nothing better runs the graph; becomes part of the engine's info.
    notes: tuple[EngineNote, ...] = ()
    #: The same graph in 8 bits, where the bundle has it.
    int8: Recipe | None = None
    #: Of a graph in 8 bits: :attr:`~sld_edge.manifest.Int8.group`.
    group: int = 0

    def file_for(self, backend: str) -> Path:
        """The file that suits a backend best."""
        return self.variants.get(backend, self.file)


def check_arrays(given: Arrays, expected: tuple[Port, ...], what: str) -> dict[str, int]:
    """Check names, dtypes, shapes and contiguity against a graph's declaration.

    Returns:
        The free dimensions' sizes by name, so that inputs and outputs can be checked against each other.

    Raises:
        InvalidInput: naming the first array that does not fit.
    """
    missing = [tensor.name for tensor in expected if tensor.name not in given]
    extra = sorted(set(given) - {tensor.name for tensor in expected})
    if missing or extra:
        raise InvalidInput(
            f"{what} do not fit the graph", value={"missing": missing, "extra": extra}
        )
    sizes: dict[str, int] = {}
    for tensor in expected:
        array = given[tensor.name]
        if array.dtype != _DTYPES[tensor.dtype] or not _fits(array.shape, tensor.shape, sizes):
            raise InvalidInput(
                f"{what}: {tensor.name} has the wrong type or shape",
                value=f"{array.dtype}{list(array.shape)}",
                hint=f"the graph takes {tensor.dtype}{list(tensor.shape)}",
            )
        if not array.flags.c_contiguous:
            raise InvalidInput(f"{what}: {tensor.name} is not C-contiguous")
    return sizes


def check_binding(graph: Graph, inputs: Arrays, outputs: Arrays) -> dict[str, int]:
    """Check arrays to be bound against a graph's declaration and against each other.

    Returns:
        The free dimensions' sizes by name.

    Raises:
        InvalidInput: naming the first array that does not fit.
        EngineError: a free dimension has two sizes.
    """
    sizes = check_arrays(inputs, graph.inputs, "inputs")
    for name, size in check_arrays(outputs, graph.outputs, "outputs").items():
        if sizes.get(name, size) != size:
            raise EngineError(f"outputs of {graph.kind} have another {name} than its inputs")
    return sizes


def not_loaded(graph: Graph) -> EngineError:
    """The error of an engine that is used outside its ``with`` block."""
    return EngineError(f"the {graph.kind} engine is not loaded", hint="use `with engine:`")


def dtype_of(tensor: Port) -> type[np.generic]:
    """NumPy's type for a declared tensor."""
    return _DTYPES[tensor.dtype]


def empty_outputs(graph: Graph, sizes: Mapping[str, int]) -> dict[str, NDArray[Any]]:
    """New arrays for a graph's outputs, contents undefined.

    Args:
        graph: Whose outputs.
        sizes: The free dimensions' sizes, as :func:`check_arrays` found them in the inputs.

    Raises:
        EngineError: a free dimension is in no input.
    """
    free = [
        t.name
        for t in graph.outputs
        if any(str(d) not in sizes for d in t.shape if isinstance(d, str))
    ]
    if free:
        raise EngineError(f"the shape of {free} does not follow from the inputs")
    return {
        tensor.name: np.empty(
            [size if isinstance(size, int) else sizes[size] for size in tensor.shape],
            dtype_of(tensor),
        )
        for tensor in graph.outputs
    }


def _fits(shape: tuple[int, ...], declared: tuple[int | str, ...], sizes: dict[str, int]) -> bool:
    if len(shape) != len(declared):
        return False
    for size, dimension in zip(shape, declared, strict=True):
        if isinstance(dimension, int):
            if size != dimension:
                return False
        elif dimension.isidentifier() and sizes.setdefault(dimension, size) != size:
            return False
    return True
