"""The one place that reads CUDA's status codes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sld_edge.errors import EngineError, MissingDependency, one_line

_OUT_OF_MEMORY = "CUDA_ERROR_OUT_OF_MEMORY"


class CudaError(EngineError):
    """A call of the CUDA driver failed.

    Attributes:
        code: Its name (``"CUDA_ERROR_ILLEGAL_ADDRESS"``).
    """

    def __init__(self, call: str, code: str) -> None:
        super().__init__(f"CUDA failed in {call} ({code})")
        self.code = code

    @property
    def is_out_of_memory(self) -> bool:
        """Whether there was not enough memory, on the device or for its bookkeeping."""
        return self.code == _OUT_OF_MEMORY


def ask(call: Callable[..., Any], *arguments: Any) -> Any:
    """Call the driver; its status is read, and its one result is returned (a tuple of several, None of none).

    Raises:
        CudaError: the status is not success.
    """
    status, *values = call(*arguments)
    if int(status) != 0:
        raise CudaError(getattr(call, "__name__", "a call"), str(status.name))
    return values[0] if len(values) == 1 else tuple(values) or None


def load_driver() -> Any:
    """The bindings of the CUDA driver, initialised.

    Raises:
        MissingDependency: cuda-bindings is not installed.
        EngineError: there is no driver, or it does not answer.
    """
    try:
        from cuda.bindings import driver
    except ImportError as error:
        raise MissingDependency(
            "cuda-bindings is not installed",
            hint="pip install 'sld-edge[gpu]', 'sld-edge[rtx]' or 'sld-edge[tensorrt]'",
        ) from error
    initialise(driver)
    return driver


def initialise(driver: Any) -> None:
    """Start the driver; more than once does no harm.

    Raises:
        EngineError: there is no driver, or it finds no device.
    """
    try:
        ask(driver.cuInit, 0)
    except CudaError as error:
        raise EngineError(f"no CUDA device answers ({error.code})") from None
    except RuntimeError as error:  # the driver's library is not on this machine at all
        raise EngineError(f"no CUDA driver here ({one_line(str(error))[:120]})") from None
