"""Record the names that a release's Python bindings offer, from its wheel alone.

    pip download --no-deps tensorrt-cu12-bindings==10.3.0
    python tests/engines/tensorrt/record_surface.py tensorrt_cu12_bindings-10.3.0-*.whl surfaces/tensorrt-10.3.json

The bindings are real and are imported; the libraries they link to are stood in for by empty ones of the same name,
for which a C compiler is needed. No function of the library is called.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

#: Classes whose members are recorded; of the others only the name is.
CLASSES = (
    "Builder", "BuilderFlag", "ComputeCapability", "CudaGraphStrategy", "DynamicShapesKernelSpecializationStrategy",
    "EngineInspector", "EngineInvalidityDiagnostics", "EngineStat", "EngineValidity",
    "ExecutionContextAllocationStrategy", "IBuilderConfig", "ICudaEngine",
    "IExecutionContext", "IHostMemory", "ILayer", "ILogger", "INetworkDefinition", "IOptimizationProfile",
    "IRuntimeCache", "IRuntimeConfig", "ITensor", "ITimingCache", "LayerInformationFormat", "LayerType",
    "MemoryPoolType", "NetworkDefinitionCreationFlag", "OnnxParser", "ParserError", "ProfilingVerbosity", "Runtime",
    "TensorIOMode",
)  # fmt: skip

_READ = """
import importlib.util, json, sys
path, name, classes = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
spec = importlib.util.spec_from_file_location(name, path)
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
public = lambda thing: sorted(n for n in dir(thing) if not n.startswith("_"))
print(json.dumps({
    "names": public(module),
    "classes": {name: public(getattr(module, name)) for name in classes if hasattr(module, name)},
}))
"""


def surface_from_wheel(wheel: Path) -> dict[str, object]:
    """The surface of one wheel of bindings."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder)
        (binding,) = folder.rglob("tensorrt*.so")
        _write_empty_libraries(binding, folder)
        done = subprocess.run(
            [sys.executable, "-c", _READ, str(binding), binding.stem, json.dumps(CLASSES)],
            env={**os.environ, "LD_LIBRARY_PATH": str(folder)},
            check=True,
            capture_output=True,
            text=True,
        )
    return {"wheel": wheel.name, **json.loads(done.stdout)}


def _write_empty_libraries(binding: Path, folder: Path) -> None:
    """For each library of NVIDIA's that the binding links to, one in which every function does nothing."""
    dynamic = subprocess.run(["readelf", "-d", binding], check=True, capture_output=True, text=True)
    symbols = subprocess.run(
        ["nm", "-D", "-u", binding], check=True, capture_output=True, text=True
    )
    missing = re.findall(r"\bU (\w*(?:Infer|Parser|Plugin|Nv)\w*)$", symbols.stdout, re.M)
    source = folder / "empty.c"
    source.write_text("".join(f"void *{one}(void) {{ return 0; }}\n" for one in missing))
    for library in re.findall(r"\[(lib(?:nv|tensorrt)\S*)\]", dynamic.stdout):
        subprocess.run(
            ["cc", "-shared", "-fPIC", f"-Wl,-soname,{library}", "-o", folder / library, source],
            check=True,
        )


if __name__ == "__main__":
    text = json.dumps(surface_from_wheel(Path(sys.argv[1])), indent=1) + "\n"
    Path(sys.argv[2]).write_text(text, "utf-8")
