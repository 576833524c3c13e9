"""A graph whose weights OpenVINO agrees to read, where a bundle's files are symbolic links.

OpenVINO refuses weights whose real path lies outside the graph's folder. A model hub's folder of downloads is laid out
so: each file is a link to one that is named by its digest. Hard links to the same files are in the folder, and take no
space.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path

from sld_edge.engines.base import Recipe
from sld_edge.errors import EngineError, one_line


def file_with_weights_beside(recipe: Recipe, file: Path) -> Path:
    """The graph's file, or a second name of it in the bundle's cache folder that has its weights beside it.

    Args:
        recipe: Whose weights and cache.
        file: The graph's file.

    Raises:
        EngineError: the weights are links out of the graph's folder, and no second names can be made.
    """
    folder = file.parent.resolve()
    names = {file.name: file, **{weights.name: weights for weights in recipe.weights}}
    if all(weights.resolve() == folder / weights.name for weights in recipe.weights):
        return file
    reason = "the bundle has no cache folder that can be written to"
    if recipe.cache is not None:
        # By what the names stand for: a link that points elsewhere tomorrow gets another folder.
        key = "\n".join(f"{name} {path.resolve()}" for name, path in sorted(names.items()))
        place = recipe.cache / "linked" / hashlib.sha256(key.encode()).hexdigest()[:16]
        try:
            place.mkdir(parents=True, exist_ok=True)
            for name, path in names.items():
                _link(path.resolve(), place / name)
            return place / file.name
        except OSError as error:
            reason = one_line(str(error.strerror or error))
    raise EngineError(
        f"openvino reads no weights that are links out of the graph's folder, and there can be no hard links ({reason})"
    )


def _link(real: Path, name: Path) -> None:
    """Make a hard link, unless it is there; another process may make the same one at this moment."""
    if name.exists() and name.samefile(real):
        return
    handle, free = tempfile.mkstemp(dir=name.parent, prefix=f".{name.name}.")
    os.close(handle)
    temporary = Path(free)
    try:
        temporary.unlink()
        os.link(real, temporary)
        temporary.replace(name)
    finally:
        temporary.unlink(missing_ok=True)
