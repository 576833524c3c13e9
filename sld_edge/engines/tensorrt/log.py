"""The library's messages: its errors kept for ours, everything in a file where one is wanted, its report kept."""

from __future__ import annotations

import re
from typing import Any, TextIO
from weakref import WeakKeyDictionary

from sld_edge.errors import one_line

#: A machine that builds for another has no driver; the library says so with every other error.
_NOISE = re.compile(
    r"\[?checkMacros\.cpp[^\n]*|[^\n]*cudaError 35[^\n]*|CUDA initialization failure with error: 35[^\n]*"
    r"|(?:\. )?In \w+ at /[^\s)]*"
)
_LAYER = re.compile(r"^(?:Layer\(|Name: .*LayerType: )")
#: By library.
_LOGGERS: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()
_TOTAL = re.compile(r"Total (Weights|Activation) Memory: (\d+) bytes")


class BuildLog:
    """What a build said.

    Attributes:
        errors: Its error messages, one line each.
        layers: The lines that describe the built engine's layers.
        weights_bytes: Size of the built engine's weights, 0 when it was not said.
        activation_bytes: Its largest activation memory over all profiles, likewise.
    """

    def __init__(self) -> None:
        self.errors: list[str] = []
        self.layers: list[str] = []
        self.weights_bytes = 0
        self.activation_bytes = 0

    def take(self, text: str, *, is_error: bool) -> None:
        """Keep what matters of one message."""
        if is_error:
            cleaned = one_line(_NOISE.sub("", text))
            if cleaned:
                self.errors.append(cleaned)
            return
        total = _TOTAL.search(text)
        if total:
            size = int(total[2])
            if total[1] == "Weights":
                self.weights_bytes = max(self.weights_bytes, size)
            else:
                self.activation_bytes = max(self.activation_bytes, size)
        elif "LayerType: " in text or text.startswith(("Layer(", "Layers:", "Engine Layer")):
            self.layers += [line for line in text.splitlines() if _LAYER.match(line)]

    @property
    def reason(self) -> str:
        """The library's own words for a failure, in one short line."""
        if not self.errors:
            return "it gave no reason"
        return self.errors[0][:300]


def logger_from_log(trt: Any, log: BuildLog, file: TextIO | None = None) -> Any:
    """The library's logger, which from now on fills ``log`` as long as that lives, and writes to ``file``.

    There is one for all: the library warns of a second logger beside the first and may ignore it, and the messages
    of a build or a run would then be lost.
    """
    logger = _LOGGERS.get(trt)
    if logger is None:
        logger = _LOGGERS[trt] = _new_logger(trt)
    logger.listeners[log] = file
    return logger


def _new_logger(trt: Any) -> Any:
    class Logger(trt.ILogger):  # type: ignore[misc]  # the library's class, which has no types
        def __init__(self) -> None:
            super().__init__()
            self.listeners: WeakKeyDictionary[BuildLog, TextIO | None] = WeakKeyDictionary()
            self._serious = (self.ERROR, self.INTERNAL_ERROR)

        def log(self, severity: Any, text: str) -> None:
            for log, file in list(self.listeners.items()):
                log.take(text, is_error=severity in self._serious)
                if file is not None and not file.closed:
                    file.write(f"{severity.name:<8} {text}\n")

    return Logger()
