"""An ONNX Runtime that takes plug-ins which are not there: a CPU session computes, the module says who did.

As the library does, it lists a plug-in's devices only after the library was registered, refuses a version that does not
fit, lists the provider as present once it is registered, and records which provider got which node.
"""

from __future__ import annotations

import importlib.machinery
import sys
import types
from dataclasses import dataclass, field
from typing import Any

import onnxruntime
import pytest

CPU = "CPUExecutionProvider"


def device(provider: str, kind: str = "GPU", **metadata: str) -> Any:
    """One that a plug-in lists."""
    hardware = types.SimpleNamespace(
        type=types.SimpleNamespace(name=kind), vendor="ACME", metadata=metadata
    )
    return types.SimpleNamespace(ep_name=provider, ep_metadata={}, device=hardware)


@dataclass
class PlugIn:
    """A package that brings one.

    Args:
        package: Its importable name.
        provider: What it brings.
        devices: What it lists.
        refuses: Why its library does not load.
    """

    package: str
    provider: str
    devices: tuple[Any, ...] = ()
    refuses: str = ""

    def get_library_path(self) -> str:
        return f"/plug-ins/{self.package}.so"

    def get_ep_name(self) -> str:
        return self.provider


@dataclass
class Options:
    """What a session is to be made with."""

    config: dict[str, str] = field(default_factory=dict)
    devices: list[Any] = field(default_factory=list)
    settings: dict[str, str] = field(default_factory=dict)
    intra_op_num_threads: int = 0
    log_severity_level: int = 0
    enable_mem_pattern: bool = True

    def add_session_config_entry(self, key: str, value: str) -> None:
        self.config[key] = value

    def add_provider_for_devices(self, devices: list[Any], settings: dict[str, str]) -> None:
        self.devices, self.settings = devices, settings


class SimulatedOnnxRuntime:
    """Stands in for the module.

    Args:
        plug_ins: Those that are installed.
        inside: Providers that it has built in beside the CPU's.
        left: Kinds of nodes that are left to the CPU provider; None leaves all.
        fails: What a session on another provider than the CPU's raises.
    """

    __version__ = "1.32.0"
    SessionOptions = Options

    def __init__(
        self,
        *plug_ins: PlugIn,
        inside: tuple[str, ...] = (),
        left: tuple[str, ...] | None = (),
        fails: str = "",
    ) -> None:
        self.plug_ins = {one.get_library_path(): one for one in plug_ins}
        self.registered: dict[str, PlugIn] = {}
        self.inside, self.left, self.fails = inside, left, fails
        self.sessions: list[Options] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(onnxruntime, name)

    def get_available_providers(self) -> list[str]:
        return [*(one.provider for one in self.registered.values()), *self.inside, CPU]

    def get_ep_devices(self) -> list[Any]:
        found = [one for plug_in in self.registered.values() for one in plug_in.devices]
        return [device(CPU, "CPU"), *found]

    def register_execution_provider_library(self, name: str, path: str) -> None:
        assert name not in self.registered
        plug_in = self.plug_ins[path]
        if plug_in.refuses:
            raise RuntimeError(plug_in.refuses)
        self.registered[name] = plug_in

    def InferenceSession(
        self, file: str, options: Options, *, providers: Any = (), enable_fallback: int
    ) -> Any:
        assert not enable_fallback
        self.sessions.append(options)
        name = options.devices[0].ep_name if options.devices else providers[0][0]
        if name != CPU and self.fails:
            raise RuntimeError(self.fails)
        left = () if name == CPU else self.left
        return Session(onnxruntime.InferenceSession(file, providers=[CPU]), name, left, file)


class Session:
    """Computes on the CPU and says that its provider did."""

    def __init__(self, real: Any, name: str, left: tuple[str, ...] | None, file: str) -> None:
        self._real, self._name, self._left, self._file = real, name, left, file

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def get_providers(self) -> list[str]:
        return [self._name, CPU]

    def get_provider_graph_assignment_info(self) -> list[Any]:
        import onnx

        nodes = onnx.load(self._file, load_external_data=False).graph.node
        return [
            types.SimpleNamespace(ep_name=self._who(node.op_type), get_nodes=lambda n=node: [n])
            for node in nodes
            if node.op_type != "Constant"
        ]

    def _who(self, kind: str) -> str:
        return CPU if self._left is None or kind in self._left else self._name


def install(monkeypatch: pytest.MonkeyPatch, module: SimulatedOnnxRuntime) -> SimulatedOnnxRuntime:
    """Put the module and the packages of its plug-ins where imports find them."""
    monkeypatch.setitem(sys.modules, "onnxruntime", module)
    module.__spec__ = importlib.machinery.ModuleSpec("onnxruntime", None)  # type: ignore[attr-defined]
    for plug_in in module.plug_ins.values():
        plug_in.__spec__ = importlib.machinery.ModuleSpec(plug_in.package, None)  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, plug_in.package, plug_in)
    return module
