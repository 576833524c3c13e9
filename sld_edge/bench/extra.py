"""The packages of the ``bench`` extra, and one line for one that is missing."""

from __future__ import annotations

import importlib.util
from importlib import import_module
from typing import Any

from sld_edge.errors import MissingDependency


def require(*names: str) -> None:
    """Find out, without importing them, whether packages are installed.

    Raises:
        MissingDependency: the first that is not.
    """
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise MissingDependency(
                f"{name} is not installed", hint="pip install 'sld-edge[bench]'"
            )


def psutil() -> Any:
    """The psutil module.

    Raises:
        MissingDependency: it is not installed.
    """
    require("psutil")
    return import_module("psutil")
