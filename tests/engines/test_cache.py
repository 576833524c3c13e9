"""The engine cache: the very bytes that were stored under that very key, or nothing."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sld_edge.engines.cache import EngineCache, EngineKey

KEY = EngineKey(
    library="tensorrt-rtx",
    library_version="1.7.1.116",
    device="",
    targets=("sm86", "sm89"),
    driver="",
    graph="graphs/unet-64x64.onnx",
    digests={"graphs/unet-64x64.onnx": "a" * 64, "graphs/unet.weights": "b" * 64},
    precision="fp16",
    profiles=({"latents": ((1, 4, 8, 8), (1, 4, 8, 8), (1, 4, 8, 8))},),
    options={"workspace_mib": 0, "tf32": False},
)
PAYLOAD = bytes(range(256)) * 3

#: One changed value for every field; a field without one fails the test below.
CHANGES: dict[str, Any] = {
    "library": "tensorrt",
    "library_version": "1.7.1.117",
    "device": "NVIDIA Orin (sm87)",
    "targets": ("sm86",),
    "driver": "13000",
    "graph": "graphs/unet-64x72.onnx",
    "digests": {**KEY.digests, "graphs/unet.weights": "c" * 64},
    "precision": "fp32",
    "profiles": ({"latents": ((1, 4, 8, 8), (1, 4, 8, 8), (2, 4, 8, 8))},),
    "options": {"workspace_mib": 0, "tf32": True},
    "part": "summary",
    "schema": KEY.schema + 1,
}

pytestmark = pytest.mark.filterwarnings("default")


@pytest.fixture
def cache(tmp_path: Path) -> EngineCache:
    cache = EngineCache(tmp_path / "cache")
    cache.store(KEY, PAYLOAD)
    return cache


def file_of(cache: EngineCache, key: EngineKey = KEY) -> Path:
    assert cache.folder is not None
    return cache.folder / key.file_name


def test_what_was_stored_is_found(cache: EngineCache) -> None:
    found = cache.lookup(KEY)
    assert found is not None
    assert bytes(found) == PAYLOAD


def test_every_field_of_the_key_has_a_change() -> None:
    assert set(CHANGES) == set(EngineKey.__struct_fields__)


@pytest.mark.parametrize("field", CHANGES)
def test_another_key_finds_nothing_and_builds(cache: EngineCache, field: str) -> None:
    other = msgspec.structs.replace(KEY, **{field: CHANGES[field]})
    assert other.digest != KEY.digest
    assert cache.lookup(other) is None
    assert cache.get_or_build(other, lambda: b"new") == (b"new", True)
    assert bytes(cache.lookup(KEY) or b"") == PAYLOAD


@pytest.mark.parametrize("field", CHANGES)
def test_a_file_under_a_foreign_name_is_refused(cache: EngineCache, field: str) -> None:
    other = msgspec.structs.replace(KEY, **{field: CHANGES[field]})
    file_of(cache, other).write_bytes(file_of(cache).read_bytes())
    assert cache.lookup(other) is None
    assert not file_of(cache, other).exists()


@pytest.mark.parametrize("bit", [0, 7])
def test_any_flipped_byte_leads_to_a_rebuild(cache: EngineCache, bit: int) -> None:
    """Every position of the file, one after the other."""
    path = file_of(cache)
    whole = path.read_bytes()
    assert len(whole) == 4096 + len(PAYLOAD)
    for position in range(len(whole)):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << bit
        path.write_bytes(damaged)
        assert cache.lookup(KEY) is None, position
        assert not path.exists()
    assert cache.get_or_build(KEY, lambda: PAYLOAD) == (PAYLOAD, True)
    assert path.read_bytes() == whole


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_any_other_content_is_refused(tmp_path_factory: Any, data: st.DataObject) -> None:
    cache = EngineCache(tmp_path_factory.mktemp("cache"))
    cache.store(KEY, PAYLOAD)
    path = file_of(cache)
    whole = path.read_bytes()
    start = data.draw(st.integers(0, len(whole)))
    stop = data.draw(st.integers(start, len(whole)))
    after = whole[:start] + data.draw(st.binary(max_size=64)) + whole[stop:]
    path.write_bytes(after)
    found = cache.lookup(KEY)
    assert (found is not None) == (after == whole)


@pytest.mark.parametrize("length", [0, 1, 8, 15, 16, 4095, 4096, 4097, 4096 + len(PAYLOAD) - 1])
def test_a_truncated_file_is_refused(cache: EngineCache, length: int) -> None:
    path = file_of(cache)
    path.write_bytes(path.read_bytes()[:length])
    assert cache.lookup(KEY) is None
    assert cache.get_or_build(KEY, lambda: PAYLOAD) == (PAYLOAD, True)


def test_a_folder_in_its_place_is_no_engine(cache: EngineCache) -> None:
    file_of(cache).unlink()
    file_of(cache).mkdir()
    assert cache.lookup(KEY) is None
    assert cache.get_or_build(KEY, lambda: PAYLOAD) == (PAYLOAD, True)


def test_an_empty_payload_is_kept_too(cache: EngineCache) -> None:
    cache.store(KEY, b"")
    assert cache.lookup(KEY) == b""


def test_claims_are_found_by_library_graph_and_part(cache: EngineCache) -> None:
    other = msgspec.structs.replace(KEY, targets=("sm120",))
    cache.store(other, PAYLOAD)
    found = [key.digest for key in cache.claimed_keys(KEY)]
    assert sorted(found) == sorted([KEY.digest, other.digest])
    for changes in ({"library": "tensorrt"}, {"graph": "graphs/text.onnx"}, {"part": "runtime"}):
        assert list(cache.claimed_keys(msgspec.structs.replace(KEY, **changes))) == []
    assert cache.holds_any(KEY.library, KEY.graph)
    assert not cache.holds_any(KEY.library, "graphs/none.onnx")


def test_a_file_under_another_name_claims_nothing(cache: EngineCache) -> None:
    path = file_of(cache)
    path.rename(path.with_name(path.name.replace(KEY.digest[:32], "0" * 32)))
    assert list(cache.claimed_keys(KEY)) == []


@pytest.mark.parametrize("content", [b"", b"SLDENG1\n", b"x" * 9000])
def test_what_is_no_engine_claims_nothing(cache: EngineCache, content: bytes) -> None:
    file_of(cache).write_bytes(content)
    assert list(cache.claimed_keys(KEY)) == []


def test_without_a_folder_every_call_builds() -> None:
    cache = EngineCache(None)
    assert cache.lookup(KEY) is None
    assert cache.get_or_build(KEY, lambda: b"x") == (b"x", True)
    assert list(cache.claimed_keys(KEY)) == []
    assert not cache.holds_any(KEY.library, KEY.graph)


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere"
)
def test_a_read_only_folder_costs_time_only(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    cache = EngineCache(tmp_path)
    assert cache.get_or_build(KEY, lambda: b"x") == (b"x", True)


def test_a_failed_build_leaves_nothing(cache: EngineCache) -> None:
    other = msgspec.structs.replace(KEY, driver="1")

    def fails() -> bytes:
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        cache.get_or_build(other, fails)
    assert cache.lookup(other) is None
    assert cache.get_or_build(other, lambda: b"x") == (b"x", True)


def test_a_full_disk_leaves_the_old_file(
    cache: EngineCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full_disk(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    cache.store(KEY, b"new")
    assert cache.lookup(KEY) == PAYLOAD
    assert cache.folder is not None
    assert [path.name for path in cache.folder.iterdir()] == [KEY.file_name]


def _build_once(folder: str, marks: str, number: int) -> None:
    def build() -> bytes:
        (Path(marks) / str(number)).touch()
        time.sleep(0.3)
        return PAYLOAD

    payload, _ = EngineCache(Path(folder)).get_or_build(KEY, build)
    assert bytes(payload) == PAYLOAD


def test_of_several_processes_one_builds_and_the_others_wait(tmp_path: Path) -> None:
    marks = tmp_path / "marks"
    marks.mkdir()
    context = multiprocessing.get_context("spawn")
    workers = [
        context.Process(target=_build_once, args=(str(tmp_path / "cache"), str(marks), number))
        for number in range(3)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    assert len(list(marks.iterdir())) == 1
    assert EngineCache(tmp_path / "cache").lookup(KEY) == PAYLOAD


def test_a_builder_that_is_killed_blocks_nobody(tmp_path: Path) -> None:
    code = f"""
import os, sys
from pathlib import Path
from tests.engines.test_cache import KEY
from sld_edge.engines.cache import EngineCache
EngineCache(Path({str(tmp_path)!r})).get_or_build(KEY, lambda: os._exit(3))
"""
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], check=False, cwd=root)
    assert done.returncode == 3
    assert EngineCache(tmp_path).get_or_build(KEY, lambda: PAYLOAD) == (PAYLOAD, True)


def test_writers_that_do_not_wait_leave_a_whole_file(tmp_path: Path) -> None:
    """Without locks (some network file systems) the last rename wins, and it is whole."""
    code = f"""
import sys
from pathlib import Path
from tests.engines.test_cache import KEY
from sld_edge.engines.cache import EngineCache
cache = EngineCache(Path({str(tmp_path)!r}))
for number in range(40):
    cache.store(KEY, bytes([int(sys.argv[1])]) * 100_000)
    found = bytes(cache.lookup(KEY) or b"")
    assert len(found) == 100_000 and len(set(found)) == 1, len(found)
"""
    root = Path(__file__).parents[2]
    writers = [subprocess.Popen([sys.executable, "-c", code, str(n)], cwd=root) for n in (1, 2)]
    assert [writer.wait(60) for writer in writers] == [0, 0]
    assert [path.name for path in tmp_path.iterdir()] == [KEY.file_name]
