"""Libraries that reach for the network when they are imported are loaded with that switched off.

ONNX Runtime (1.29 and later, on Linux and macOS) has a switch, ``ORT_DISABLE_TELEMETRY``, which it reads once, when it
is imported; ``sld_edge`` sets it when it is imported itself. OpenVINO has none but a file in the user's home: it is
imported without its package ``openvino_telemetry``, as where that is not installed. diffusers imports urllib3, which
opens a socket to see whether IPv6 works.
"""

from __future__ import annotations

import contextlib
import socket
import sys
import threading
from importlib import import_module
from typing import Any

_REPORTER = "openvino_telemetry"
_lock = threading.Lock()


def import_openvino() -> Any:
    """The ``openvino`` module, which neither reports its import nor writes an id into the user's home.

    A program that imported it before has it as it was.

    Raises:
        ImportError: it is not installed.
    """
    with _lock:
        if "openvino" in sys.modules:
            return sys.modules["openvino"]
        hidden = {name: sys.modules[name] for name in sys.modules if _is_reporter(name)}
        for name in hidden:
            del sys.modules[name]
        sys.modules[_REPORTER] = None  # type: ignore[assignment]  # to import it is an ImportError now
        try:
            return import_module("openvino")
        finally:
            del sys.modules[_REPORTER]
            sys.modules.update(hidden)


def import_diffusers() -> Any:
    """The ``diffusers`` module, imported without a socket; urllib3 takes IPv6 to work wherever Python knows it.

    Raises:
        ImportError: it is not installed.
    """
    with _lock:
        if "urllib3" not in sys.modules:
            known = socket.has_ipv6
            socket.has_ipv6 = False
            try:
                with contextlib.suppress(ImportError):
                    connection: Any = import_module("urllib3.util.connection")
                    connection.HAS_IPV6 = known
            finally:
                socket.has_ipv6 = known
        return import_module("diffusers")


def _is_reporter(name: str) -> bool:
    return name == _REPORTER or name.startswith(f"{_REPORTER}.")
