"""How the benchmarks' files depend on each other."""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import sld_edge.bench

ROOT = Path(sld_edge.bench.__file__).parent
#: Longest a file may be.
MOST = 300


def name_of(file: Path) -> str:
    parts = file.relative_to(ROOT.parent.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported_by(file: Path, known: set[str]) -> set[str]:
    """Every file that one imports, in functions and for types too."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            inner = {f"{node.module}.{alias.name}" for alias in node.names} & known
            found |= inner or ({node.module} & known)
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names} & known
    return found


def test_no_two_files_need_each_other() -> None:
    files = {name_of(file): file for file in ROOT.rglob("*.py")}
    order = TopologicalSorter({n: imported_by(f, set(files)) for n, f in files.items()})
    order.prepare()


def test_every_file_can_be_read_at_once() -> None:
    long = {
        str(file.relative_to(ROOT)): count
        for file in [*ROOT.rglob("*.py"), *ROOT.rglob("*.j2")]
        if (count := len(file.read_text("utf-8").splitlines())) > MOST
    }
    assert not long
