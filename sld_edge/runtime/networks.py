"""A pipeline's networks: all loaded at once, or one stage after the other where memory is short."""

from __future__ import annotations

import ctypes
import os
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager

from msgspec import UNSET

from sld_edge.bundle import Bundle
from sld_edge.engines.base import Engine, EngineOptions
from sld_edge.engines.cuda.session import CudaSession
from sld_edge.engines.info import EngineInfo
from sld_edge.engines.load import load
from sld_edge.errors import BundleError, EngineError
from sld_edge.manifest import Graph, GraphKind
from sld_edge.runtime.memory_plan import MemoryMode
from sld_edge.runtime.observe import Observer


class Networks:
    """Loads engines when they are used.

    With ``memory="normal"`` an engine that was loaded stays, but for what it needs only while it runs. With ``"low"``
    every stage loads its own and releases them when it ends, however it ends: two stages are never loaded together.

    Args:
        bundle: Where the graphs lie.
        options: How they run.
        observer: Given every engine before it is acquired.
        memory: ``"normal"`` or ``"low"``.
        before_release: Called before engines are released, to let go of what refers to them.
    """

    def __init__(
        self,
        bundle: Bundle,
        options: EngineOptions,
        observer: Observer,
        *,
        memory: MemoryMode,
        before_release: Callable[[], None],
    ) -> None:
        self.memory = memory
        #: What is loaded now.
        self.loaded: dict[GraphKind, Engine] = {}
        self._bundle = bundle
        self._options = options
        self._observer = observer
        self._before_release = before_release
        #: The device that the engines share, where they run on one; opened by the first of them.
        self._session = CudaSession()
        self._size = (bundle.manifest.shapes[0].height, bundle.manifest.shapes[0].width)
        self._stack = ExitStack()
        # Replaced as a whole and never changed, so that any thread may read it at any time.
        self._infos: dict[str, EngineInfo] = {}
        _all.add(self)

    @property
    def infos(self) -> dict[str, EngineInfo]:
        """What runs each graph and why; with ``low`` also of those that were released again."""
        return dict(self._infos)

    @property
    def kinds(self) -> tuple[GraphKind, ...]:
        """The networks that every picture needs."""
        head: tuple[GraphKind, ...] = ("safety",) if self._bundle.manifest.safety.head else ()
        return ("text", "unet", "advance", "decode", *head)

    def graph(self, kind: GraphKind) -> Graph:
        """The bundle's graph for the present size."""
        height, width = self._size
        return self._bundle.graph(kind, height=height, width=width)

    def set_size(self, height: int, width: int) -> None:
        """Use the networks of a size in pixels; those of another are let go first, their weights are big."""
        if (height, width) == self._size:
            return
        self._bundle.graph("unet", height=height, width=width)
        self.release()
        self._size = (height, width)

    def load_all(self) -> None:
        """Load what every picture needs, unless memory is to be kept low.

        Raises:
            EngineError: no engine could load a graph; nothing stays loaded then.
        """
        if self.memory == "low":
            return
        try:
            self._acquire(self.kinds)
        except BaseException:
            self.release()
            raise

    @contextmanager
    def use(self, *kinds: GraphKind) -> Iterator[Mapping[GraphKind, Engine]]:
        """The engines of one stage, loaded.

        Raises:
            EngineError: no engine could load a graph.
        """
        if self.memory == "normal":
            self._acquire(kinds)
            try:
                yield self.loaded
            finally:
                for kind in kinds:
                    if kind in self.loaded:
                        self.loaded[kind].trim()
            return
        self._let_go()
        try:
            self._acquire(kinds)
            yield self.loaded
        finally:
            self._let_go()

    def share_with(self, other: Networks) -> None:
        """Give another pipeline's networks engines over the weights that are loaded here, for the same size.

        Raises:
            EngineError: the engine of a graph cannot be shared; the other has none then.
        """
        try:
            other._size = self._size
            for kind, engine in self.loaded.items():
                try:
                    sibling = other._observer.engine(engine.sibling())
                except EngineError as error:
                    raise EngineError(
                        f"the engine of {kind} cannot be shared ({engine.info})"
                    ) from error
                other._keep(kind, other._stack.enter_context(sibling))
        except BaseException:
            other.release()
            raise

    def release(self) -> None:
        """Release every engine and forget what they were."""
        self._let_go()
        self._infos = {}

    def _let_go(self) -> None:
        self._before_release()
        self.loaded.clear()
        self._stack.close()

    def _acquire(self, kinds: tuple[GraphKind, ...]) -> None:
        for kind in kinds:
            if kind not in self.loaded:
                self._load(kind)

    def _load(self, kind: GraphKind) -> None:
        """Load one network from files that were hashed and that did not change while they were read.

        Loading may lay another link to a file beside it, which its stamp shows: then it is hashed and loaded again.
        """
        graph = self.graph(kind)
        names = _files_of(graph)
        for again in (False, True):
            self._bundle.check_unchanged(names, hash_again=again)
            engine = load(self._bundle, graph, self._options, self._session)
            with ExitStack() as trial:
                acquired = trial.enter_context(self._observer.engine(engine))
                try:
                    self._bundle.check_unchanged(names)
                except BundleError:
                    if again:
                        raise
                    continue
                self._stack.enter_context(trial.pop_all())
            self._keep(kind, acquired)
            return

    def _keep(self, kind: GraphKind, acquired: Engine) -> None:
        self.loaded[kind] = acquired
        self._infos = {**self._infos, kind: acquired.info}


def _files_of(graph: Graph) -> tuple[str, ...]:
    """Every file that an engine of a graph may read."""
    int8 = () if graph.int8 is UNSET else (graph.int8.file, *graph.int8.weights)
    return (graph.file, *graph.weights, *graph.variants.values(), *int8)


_all: weakref.WeakSet[Networks] = weakref.WeakSet()


def _keep_for_ever() -> None:
    """In a fork of the process: let no engine be destroyed, since that waits for threads that did not come along."""
    for networks in list(_all):
        for held in (networks.loaded, *networks.loaded.values()):
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(held))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_keep_for_ever)
