"""Errors are one line with what, value and hint."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sld_edge import errors
from sld_edge.errors import InvalidInput, SldError, shorten


def test_message_has_what_value_and_hint() -> None:
    assert str(InvalidInput("steps", value=0, hint="use 1 or more")) == "steps: 0 — use 1 or more"


@given(st.text(), st.text(max_size=10_000), st.text())
def test_message_is_always_one_line(what: str, value: str, hint: str) -> None:
    text = str(InvalidInput(what, value=value, hint=hint))
    assert len(text.splitlines()) <= 1


@given(st.one_of(st.text(), st.binary(), st.lists(st.integers())))
def test_values_are_shortened(value: object) -> None:
    assert len(shorten(value)) <= 80


def test_every_error_has_its_own_exit_code() -> None:
    kinds = [
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, SldError) and SldError in kind.__bases__
    ]
    codes = [kind.exit_code for kind in kinds]
    assert len(set(codes)) == len(codes)
    assert all(0 < code < 126 for code in codes)


@pytest.mark.parametrize("value", [None, float("nan"), b"\xff", "\ud800"])
def test_odd_values_can_be_shown(value: object) -> None:
    assert str(InvalidInput("x", value=value)).encode("utf-8", "strict")
