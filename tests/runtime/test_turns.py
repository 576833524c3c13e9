"""The lock of a pipeline: first come, first served, whatever happens to those that wait."""

from __future__ import annotations

import os
import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sld_edge import EngineError
from sld_edge.runtime.turns import Turns


def _waits(turns: Turns, count: int) -> None:
    """Return when so many threads wait for their turn."""
    limit = time.monotonic() + 10
    while len(turns._queue) < count:
        assert time.monotonic() < limit, "a thread did not come to wait"
        time.sleep(0.001)


@settings(max_examples=10, deadline=None)
@given(count=st.integers(1, 12))
def test_those_that_wait_are_served_in_the_order_in_which_they_came(count: int) -> None:
    turns, served = Turns(), list[int]()

    def ask(number: int) -> None:
        with turns.turn("called"):
            served.append(number)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(count)]
    with turns.turn("called"):
        for number, thread in enumerate(threads):
            thread.start()
            _waits(turns, number + 1)
    for thread in threads:
        thread.join()
    assert served == list(range(count))


def test_only_one_has_the_turn() -> None:
    turns, inside, most = Turns(), [0], [0]

    def ask() -> None:
        for _ in range(50):
            with turns.turn("called"):
                inside[0] += 1
                most[0] = max(most[0], inside[0])
                time.sleep(0)
                inside[0] -= 1

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1]
    assert inside == [0]


def test_the_same_thread_is_told_instead_of_waiting_for_itself() -> None:
    turns = Turns()
    with (
        turns.turn("called"),
        pytest.raises(EngineError, match="closed from inside its own call"),
        turns.turn("closed"),
    ):
        pass
    with turns.turn("called"):
        pass  # it was given back all the same


def test_an_error_inside_gives_the_turn_back() -> None:
    turns = Turns()
    with pytest.raises(KeyError), turns.turn("called"):
        raise KeyError
    assert turns.try_turn()
    assert not turns.try_turn()


@pytest.mark.parametrize("turn_came", [False, True])
def test_who_is_interrupted_while_waiting_is_passed_over(
    turn_came: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether the interrupt comes before the turn or just after it was handed over."""
    turns, served = Turns(), list[str]()

    class Interrupted:
        def __init__(self) -> None:
            self._gate = threading.Lock()
            self._taken = False

        def acquire(self) -> bool:
            if not self._taken:
                self._taken = True
                return self._gate.acquire()
            if turn_came:
                self._gate.acquire()
            raise KeyboardInterrupt

        def release(self) -> None:
            self._gate.release()

    def interrupted() -> None:
        with pytest.raises(KeyboardInterrupt), turns.turn("called"):
            served.append("never")

    def patient() -> None:
        with turns.turn("called"):
            served.append("patient")

    with turns.turn("called"):
        real = threading.Lock
        with monkeypatch.context() as patch:
            patch.setattr("sld_edge.runtime.turns._new_gate", Interrupted)
            first = threading.Thread(target=interrupted)
            first.start()
            if turn_came:
                _waits(turns, 1)
            else:
                first.join()
        assert threading.Lock is real
        second = threading.Thread(target=patient)
        second.start()
        _waits(turns, 2 if turn_came else 1)
    first.join(10)
    second.join(10)
    assert not first.is_alive()
    assert not second.is_alive()
    assert served == ["patient"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_a_fork_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    turns = Turns()
    monkeypatch.setattr(os, "getpid", lambda: -1)
    with pytest.raises(EngineError, match="before the process forked"), turns.turn("called"):
        pass
    assert not turns.try_turn()
