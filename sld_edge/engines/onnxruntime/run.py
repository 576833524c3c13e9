"""A session of ONNX Runtime behind the Engine protocol, with arrays bound once."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sld_edge.engines.base import (
    HOST,
    Arrays,
    Engine,
    Place,
    Recipe,
    check_arrays,
    check_binding,
    dtype_of,
    not_loaded,
)
from sld_edge.engines.cores import usable_cores
from sld_edge.engines.cuda.session import CudaSession
from sld_edge.engines.half_range import BEYOND_HALF, fits_half
from sld_edge.engines.info import EngineInfo, EngineNote, refusals
from sld_edge.engines.onnxruntime.on_stream import OnStreamEngine, failed_in
from sld_edge.engines.onnxruntime.providers import Provider, candidates, on_a_card
from sld_edge.engines.onnxruntime.shares import RECORD, Share, share_of
from sld_edge.engines.openvino.linked import file_with_weights_beside
from sld_edge.errors import EngineError, MissingDependency, one_line
from sld_edge.kinds import KINDS
from sld_edge.manifest import Graph

#: Characters of an error that are shown.
_LONGEST = 400


class OnnxRuntimeEngine:
    """Runs one graph with ONNX Runtime on the best execution provider that accepts it."""

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe
        self._session: Any = None
        self._provider: Provider | None = None
        self._on_stream: OnStreamEngine | None = None
        self._refused: list[EngineNote] = []
        self._share = Share()

    @property
    def graph(self) -> Graph:
        """The graph this engine runs."""
        return self._recipe.graph

    @property
    def provider(self) -> str:
        """Short name of the execution provider in use (``"cpu"``), empty before it is acquired."""
        return self._provider.short_name if self._provider else ""

    @property
    def info(self) -> EngineInfo:
        """Library, provider, precision and threads, and which better provider was refused and why."""
        if self._on_stream is not None:
            return self._on_stream.info
        return (
            self._info_on(self._provider) if self._provider else EngineInfo(library="onnxruntime")
        )

    @property
    def places(self) -> dict[Place, Any]:
        """The host."""
        return {HOST: self}

    def __enter__(self) -> Engine:
        """This engine; on a card another one, whose arrays may stay there."""
        if self._session is None and self._on_stream is None:
            self._open()
        return self if self._on_stream is None else self._on_stream

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        serving, self._on_stream = self._on_stream, None
        self._session = None
        self._provider = None
        if serving is not None:
            serving.__exit__(kind, error, trace)

    def bind(
        self, inputs: Arrays, outputs: Arrays, *, constant: Collection[str] = ()
    ) -> Callable[[], None]:
        """Bind arrays by address; on the CPU provider nothing is copied when the returned function runs.

        Any other provider has memory of its own, and ONNX Runtime copies an input to it when it is *bound*,
        not when the graph runs: there the inputs that may have changed are bound again at every call.

        Raises:
            InvalidInput: an array does not fit the graph.
            EngineError: when run, if ONNX Runtime fails.
        """
        check_binding(self.graph, inputs, outputs)
        session = self._acquired()
        binding = session.io_binding()

        def bind_inputs(names: Iterable[str]) -> None:
            for name in names:
                array = inputs[name]
                binding.bind_input(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)

        bind_inputs(inputs)
        changing = (
            [] if self.provider == "cpu" else [name for name in inputs if name not in constant]
        )
        for name, array in outputs.items():
            binding.bind_output(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)
        kept = (dict(inputs), dict(outputs))

        def call() -> None:
            assert kept
            try:
                bind_inputs(changing)
                session.run_with_iobinding(binding)
            except Exception as error:
                raise failed_in(self.graph, error) from error

        return call

    def run(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        """Run once; outputs are new arrays in the graph's declared types."""
        check_arrays(inputs, self.graph.inputs, "inputs")
        names = [tensor.name for tensor in self.graph.outputs]
        try:
            results = self._acquired().run(names, dict(inputs))
        except Exception as error:
            raise failed_in(self.graph, error) from error
        return {
            tensor.name: np.asarray(result, dtype=dtype_of(tensor))
            for tensor, result in zip(self.graph.outputs, results, strict=True)
        }

    def sibling(self) -> OnnxRuntimeEngine:
        """Another user of the same session: on the host each binding has arrays of its own.

        Raises:
            EngineError: this one is not loaded, or runs on a card, where runs share the session's stream.
        """
        session = self._acquired()
        if on_a_card(self.provider):
            raise EngineError(f"a session of onnxruntime on {self.provider} cannot be shared")
        other = OnnxRuntimeEngine(self._recipe)
        other._session, other._provider, other._refused = session, self._provider, self._refused
        other._share = self._share
        return other

    def trim(self) -> None:
        """Nothing to do: ONNX Runtime keeps its arena for as long as the session lives."""

    def _acquired(self) -> Any:
        if self._session is None:
            raise not_loaded(self.graph)
        return self._session

    def _threads(self) -> int:
        if KINDS[self.graph.kind].beside_denoiser:
            return 1  # too little work for a thread pool: waking it costs more than it saves
        return self._recipe.options.threads or usable_cores()

    def _info_on(self, provider: Provider, *more: EngineNote) -> EngineInfo:
        import onnxruntime

        return EngineInfo(
            library="onnxruntime",
            version=onnxruntime.__version__,
            provider=provider.name,
            device=provider.device,
            arithmetic=provider.arithmetic.stated,
            threads=self._threads(),
            notes=(*self._refused, *more, *self._share.notes, *self._recipe.notes),
        )

    def _open(self) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise MissingDependency(
                "onnxruntime is not installed",
                hint="pip install 'sld-edge[cpu]', or 'sld-edge[gpu]' for NVIDIA cards",
            ) from error
        self._refused = []
        recipe = self._recipe
        for provider in candidates(recipe.options, threads=self._threads(), stored=recipe.stored):
            for file in self._files(provider):
                if self._opened(onnxruntime, provider, file):
                    return
        raise EngineError(
            f"no execution provider could load {recipe.file.name} "
            f"({'; '.join(note.text for note in self._refused)})"
        )

    def _files(self, provider: Provider) -> tuple[Path, ...]:
        """The graph's files to try, best first: a form made for the provider, then the neutral one."""
        recipe = self._recipe
        if provider.short_name not in ("cpu", "cuda"):
            return (recipe.file,)
        neutral = recipe.file_for("onnxruntime")
        return tuple(
            dict.fromkeys(
                (recipe.variants.get(f"onnxruntime-{provider.short_name}", neutral), neutral)
            )
        )

    def _opened(self, onnxruntime: Any, provider: Provider, file: Path) -> bool:
        """Open a session on a file, on the pipeline's stream where it can be; what is refused is noted."""
        no_stream = self._put_on_stream(onnxruntime, provider, file)
        if self._on_stream is not None:
            return True
        try:
            self._session = self._session_on(onnxruntime, provider, file, {})
        except Exception as error:
            form = "" if file == self._recipe.file else " its own form of the graph"
            why = f"{provider.name} refused{form}: {one_line(str(error))[:_LONGEST]}"
            self._refused += refusals((why,))
            return False
        self._refused += no_stream
        self._provider = provider
        return True

    def _put_on_stream(self, onnxruntime: Any, provider: Provider, file: Path) -> list[EngineNote]:
        """Open the session on the pipeline's stream where the provider takes one; else why not."""
        if provider.short_name != "cuda":
            return []
        try:
            self._on_stream = OnStreamEngine(
                self.graph,
                self._recipe.session or CudaSession(),
                lambda more: self._session_on(onnxruntime, provider, file, more),
                EngineInfo(library="onnxruntime"),
            )
        except (EngineError, MissingDependency) as error:
            why = one_line(str(error))[:200]
            text = f"not on the pipeline's stream, arrays are copied at every run: {why}"
            return [EngineNote(kind="copies", text=text)]
        # Which nodes run where is known now.
        on_stream = EngineNote(kind="stream", text="on the pipeline's stream")
        self._on_stream.info = self._info_on(provider, on_stream)
        self._provider = provider
        return []

    def _session_on(
        self, onnxruntime: Any, provider: Provider, file: Path, more: dict[str, str]
    ) -> Any:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self._threads()
        options.log_severity_level = 3
        # A pattern is one more block for all activations, from the second run on, beside those of the first:
        # twice the memory, for no time that could be measured.
        options.enable_mem_pattern = False
        if why_not := provider.refused or provider.arithmetic.refused:
            raise EngineError(why_not)
        if provider.arithmetic.narrows and not fits_half(self._recipe):
            raise EngineError(f"fp16 was allowed, {BEYOND_HALF}")
        if provider.short_name == "openvino":
            file = file_with_weights_beside(self._recipe, file)
        if provider.short_name != "cpu":
            options.add_session_config_entry(*RECORD)
        # Otherwise ONNX Runtime prints why a provider fails, and tries the CPU's without a word to the caller.
        here = {"enable_fallback": 0}
        if provider.devices:
            options.add_provider_for_devices(list(provider.devices), provider.options)
            session = onnxruntime.InferenceSession(str(file), options, **here)
        else:
            settings = {**provider.options, **more}
            session = onnxruntime.InferenceSession(
                str(file), options, providers=[(provider.name, settings)], **here
            )
        # A provider whose libraries do not load is dropped with a mere warning: that must not pass unseen.
        if session.get_providers()[0] != provider.name:
            del session  # the error must not keep it beyond its stream
            raise EngineError("it did not load on this machine")
        self._share = share_of(session, provider.name, file)
        if self._share.is_none:
            del session
            raise EngineError("it runs none of the graph's nodes")
        return session
