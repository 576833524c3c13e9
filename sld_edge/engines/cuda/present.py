"""Which CUDA device this machine has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sld_edge.engines.cuda.status import CudaError, ask, load_driver
from sld_edge.errors import EngineError


@dataclass(frozen=True, kw_only=True)
class Device:
    """The CUDA device that engines are built on and loaded on."""

    name: str
    capability: tuple[int, int]
    driver: str

    @property
    def target(self) -> str:
        """Its compute capability as users write it: ``"sm89"``."""
        return f"sm{self.capability[0]}{self.capability[1]}"

    @property
    def label(self) -> str:
        """Name and compute capability, for keys and messages."""
        return f"{self.name} ({self.target})"


def present_device(ordinal: int = 0) -> Device:
    """The CUDA device of this machine.

    Raises:
        EngineError: there is none, or its driver does not answer.
        MissingDependency: cuda-bindings is not installed.
    """
    driver = load_driver()
    try:
        return device_from_driver(driver, ordinal)
    except CudaError as error:
        raise EngineError(f"no CUDA device answers ({error.code})") from None


def device_from_driver(driver: Any, ordinal: int = 0) -> Device:
    """What an initialised driver says of a device.

    Raises:
        CudaError: it has no such device.
    """
    device = ask(driver.cuDeviceGet, ordinal)
    name = ask(driver.cuDeviceGetName, 128, device)
    attribute = driver.CUdevice_attribute
    major, minor = (
        ask(driver.cuDeviceGetAttribute, number, device)
        for number in (
            attribute.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR,
            attribute.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR,
        )
    )
    return Device(
        name=name.split(b"\0")[0].decode("utf-8", "replace"),
        capability=(int(major), int(minor)),
        driver=str(ask(driver.cuDriverGetVersion)),
    )
