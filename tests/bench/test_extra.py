"""A package of the extra that is missing is one line, before anything is opened or measured."""

from __future__ import annotations

import sys

import pytest

from sld_edge.bench.cli import main

HTML = ("--html", "page.html")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("psutil", ["startup"]),
        ("psutil", ["gpu-check", "no-such"]),
        ("jinja2", ["latency", "no-such", *HTML]),
        ("matplotlib", ["latency", "no-such", *HTML]),
        ("matplotlib", ["compare", "no-such", "no-such", *HTML]),
        ("jinja2", ["card", *HTML]),
        ("jinja2", ["safety", "no-such"]),
        ("matplotlib", ["safety", "no-such"]),
        ("scipy", ["safety", "no-such"]),
        ("scipy", ["precision", "no-such", "out", "--full", "a", "--low", "b"]),
    ],
    ids=lambda value: value if isinstance(value, str) else value[0],
)
def test_a_missing_package_is_one_line(
    name: str, words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == 8
    assert (
        capsys.readouterr().err
        == f"error: {name} is not installed — pip install 'sld-edge[bench]'\n"
    )


@pytest.mark.parametrize("name", ["jinja2", "matplotlib", "scipy"])
def test_measuring_without_a_page_needs_no_package_for_one(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(SystemExit) as caught:
        main(["latency", "no-such"])
    assert caught.value.code != 8
    assert "no-such" in capsys.readouterr().err
