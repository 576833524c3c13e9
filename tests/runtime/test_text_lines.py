"""Lists of prompts as editors save them."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sld_edge.errors import InvalidInput
from sld_edge.runtime.text_lines import lines_from_file

#: What no editor shows as the end of a line, though ``str.splitlines`` breaks there.
WITHIN_A_LINE = "\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"


def read(folder: Path, data: bytes) -> list[str]:
    file = folder / "prompts.txt"
    file.write_bytes(data)
    return lines_from_file(file)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_byte_order_mark_is_no_part_of_a_prompt(tmp_path: Path, end: str) -> None:
    text = f"\ufeffa castle{end}{end}  a café {end}\ufeffa forest"
    assert read(tmp_path, text.encode()) == ["a castle", "a café", "a forest"]


@pytest.mark.parametrize("character", WITHIN_A_LINE)
def test_lines_end_where_an_editor_shows_it(tmp_path: Path, character: str) -> None:
    text = f"a castle{character}by a lake\na forest\n"
    assert read(tmp_path, text.encode()) == [f"a castle{character}by a lake", "a forest"]


@given(st.lists(st.text(st.characters(exclude_characters="\r\n\ufeff", codec="utf-8"))))
def test_any_lines_come_back(tmp_path_factory: pytest.TempPathFactory, lines: list[str]) -> None:
    got = read(tmp_path_factory.mktemp("lines"), "\n".join(lines).encode())
    assert got == [line.strip() for line in lines if line.strip()]


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_standard_input_is_utf8_whatever_the_terminal_is(
    monkeypatch: pytest.MonkeyPatch, encoding: str
) -> None:
    data = io.BytesIO("\ufeffa café\nb".encode())
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(data, encoding=encoding))
    assert lines_from_file(Path("-")) == ["a café", "b"]


def test_no_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(InvalidInput, match="no standard input"):
        lines_from_file(Path("-"))


@pytest.mark.parametrize("data", ["a café".encode("utf-16"), b"a\xff"])
def test_other_encodings_are_refused(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(InvalidInput, match="not UTF-8"):
        read(tmp_path, data)
    with pytest.raises(InvalidInput, match="cannot read"):
        lines_from_file(tmp_path / "none.txt")
