"""Record the driver calls that a release of cuda-bindings offers, with their arguments, from its unpacked wheel.

    pip download --no-deps cuda-bindings==13.0.0 && unzip cuda_bindings-13.0.0-*.whl -d wheel
    python tests/engines/cuda/record_surface.py wheel surfaces/cuda_bindings-13.0.json

The bindings are imported; no driver is needed and none is called.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any


def surface_from_bindings(driver: Any) -> dict[str, str]:
    """Every call of the driver by name, with its arguments as its documentation has them."""
    return {
        name: (getattr(driver, name).__doc__ or "").strip().partition("\n")[0]
        for name in sorted(dir(driver))
        if name.startswith("cu") and callable(getattr(driver, name))
    }


if __name__ == "__main__":
    sys.path.insert(0, sys.argv[1])
    from cuda.bindings import driver

    text = json.dumps(surface_from_bindings(driver), indent=1) + "\n"
    Path(sys.argv[2]).write_text(text, "utf-8")
