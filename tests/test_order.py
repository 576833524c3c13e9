"""The longest test modules are begun first, by names that are there."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tests.conftest import LONGEST, pytest_collection_modifyitems

HERE = Path(__file__).parent


def test_every_long_module_is_there_once() -> None:
    assert len(set(LONGEST)) == len(LONGEST)
    for name in LONGEST:
        assert (HERE / name).is_file(), name


def test_they_come_first_and_the_others_stay_as_they_were() -> None:
    names = ["test_arrows.py", LONGEST[1], "test_bundle.py", LONGEST[0], "test_arrows.py"]
    items: list[Any] = [SimpleNamespace(path=HERE / name, at=at) for at, name in enumerate(names)]
    pytest_collection_modifyitems(items)
    assert [item.at for item in items] == [3, 1, 0, 2, 4]
