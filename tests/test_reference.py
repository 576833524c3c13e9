"""The API reference: it builds without a warning, shows the public names only, and its examples hold."""

from __future__ import annotations

import doctest
import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import sld_edge
from sld_edge import errors

ROOT = Path(__file__).parents[1]
PUBLIC = [name for name in sld_edge.__all__ if name != "__version__"]


def examples() -> Iterator[doctest.DocTest]:
    """Every example below a public name and below the errors, each once."""
    finder = doctest.DocTestFinder(exclude_empty=True)
    objects = [getattr(sld_edge, name) for name in PUBLIC]
    objects += [one for _, one in inspect.getmembers(errors, inspect.isclass)]
    for one in {f"{found.__module__}.{found.__qualname__}": found for found in objects}.values():
        for test in finder.find(one, f"{one.__module__}.{one.__qualname__}", globs={}):
            if test.examples:
                yield test


EXAMPLES = list(examples())


@pytest.mark.parametrize("example", EXAMPLES, ids=[one.name for one in EXAMPLES])
def test_examples_hold(
    example: doctest.DocTest, tmp_path: Path, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bundle").symlink_to(tiny_bundle)
    monkeypatch.chdir(tmp_path)
    said: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.FAIL_FAST)
    assert runner.run(example, out=said.append).failed == 0, "".join(said)
    assert not any(doctest.SKIP in one.options for one in example.examples)


@pytest.mark.parametrize("name", [n for n in PUBLIC if not n.endswith("Error")])
def test_every_public_class_has_an_example(name: str) -> None:
    if name in ("InvalidInput", "MemoryPlan"):
        return  # shown at SldError, and where a pipeline makes one
    home = f"{getattr(sld_edge, name).__module__}.{name}"
    assert any(one.name == home for one in EXAMPLES)


def members() -> Iterator[tuple[str, Any]]:
    """Public names with what they are called with: classes that take arguments, and their methods."""
    for name in PUBLIC:
        one = getattr(sld_edge, name)
        if not issubclass(one, Exception):
            yield name, one
        for member in dir(one):
            found = inspect.getattr_static(one, member)
            function = getattr(found, "__func__", found)
            ours = str(getattr(function, "__module__", "")).startswith("sld_edge")
            if inspect.isfunction(function) and ours and (member == "__call__" or member[0] != "_"):
                yield f"{name}.{member}", function


@pytest.mark.parametrize(("name", "one"), list(members()), ids=[name for name, _ in members()])
def test_every_argument_and_error_is_described(name: str, one: Any) -> None:
    text = inspect.getdoc(one) or ""
    names = [found for found in inspect.signature(one).parameters if found.strip("_") == found]
    described = {found for found in names if re.search(rf"\b{found}\b", text)} | {"self", "cls"}
    assert set(names) <= described
    if inspect.isfunction(one) and re.search(r"^\s+raise \w", inspect.getsource(one), re.MULTILINE):
        assert "Raises:" in text
    for error in re.findall(r"^    ((?:\w+, )*\w+): ", text.partition("Raises:")[2], re.MULTILINE):
        for raised in error.split(", "):
            assert raised in vars(errors) or raised == "OSError", raised


def test_the_pages_build_without_a_warning_and_show_what_is_public(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", ROOT / "docs" / "reference.py", tmp_path],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    page = (tmp_path / "sld_edge.html").read_text("utf-8")
    shown = set(re.findall(r'<section id="(\w+)"', page))
    assert shown == set(sld_edge.__all__)
    assert "SafePipeline.from_pretrained" in page
    pages = {file.relative_to(tmp_path).as_posix() for file in tmp_path.rglob("*.html")}
    assert pages == {"index.html", "sld_edge.html", "sld_edge/errors.html"}
