"""What OpenVINO compiled is found again, gives the same numbers, and is never trusted when it is not whole."""

from __future__ import annotations

import logging
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sld_edge.bundle import Bundle
from sld_edge.engines import mapped
from sld_edge.engines.base import Engine, EngineOptions
from sld_edge.engines.load import load

pytest.importorskip("openvino")

IDS = {"input_ids": np.arange(77, dtype=np.int64)[None] % 400}


@pytest.fixture
def bundle(tiny_bundle: Path, tmp_path: Path) -> Bundle:
    shutil.copytree(tiny_bundle, tmp_path / "copy", ignore=shutil.ignore_patterns("cache"))
    return Bundle.open(tmp_path / "copy")


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that were read to be compiled, not found."""
    import openvino

    names: list[str] = []
    whole = openvino.Core.read_model

    def spy(self: openvino.Core, model: str, *rest: object) -> object:
        names.append(Path(model).name)
        return whole(self, model, *rest)

    monkeypatch.setattr(openvino.Core, "read_model", spy)
    return names


def text_engine(bundle: Bundle, **options: Any) -> Engine:
    return load(bundle, bundle.graph("text"), EngineOptions(backend="openvino", **options))


def blob_of(bundle: Bundle) -> Path:
    (file,) = (bundle.path / "cache").glob("openvino-text-*.engine")
    return file


def test_a_second_start_compiles_nothing_and_computes_the_same(
    bundle: Bundle, compiled: list[str]
) -> None:
    with text_engine(bundle) as engine:
        first = engine.run(IDS)
    assert compiled == ["text.onnx"]
    with text_engine(bundle) as engine:
        second = engine.run(IDS)
    assert compiled == ["text.onnx"]
    for name, array in first.items():
        np.testing.assert_array_equal(array, second[name])


def test_other_settings_are_compiled_anew(bundle: Bundle, compiled: list[str]) -> None:
    with text_engine(bundle, threads=1):
        pass
    with text_engine(bundle, threads=2):
        pass
    assert compiled == ["text.onnx"] * 2


def test_a_changed_byte_is_compiled_anew(bundle: Bundle, compiled: list[str]) -> None:
    with text_engine(bundle) as engine:
        want = engine.run(IDS)
    content = bytearray(blob_of(bundle).read_bytes())
    content[len(content) // 2] ^= 1
    blob_of(bundle).write_bytes(content)
    with text_engine(bundle) as engine:
        got = engine.run(IDS)
    assert compiled == ["text.onnx"] * 2
    np.testing.assert_array_equal(got["k_00"], want["k_00"])


def test_what_openvino_no_longer_takes_is_compiled_anew_and_said(
    bundle: Bundle,
    compiled: list[str],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    import openvino

    def refuse(*_: object) -> None:
        raise RuntimeError("made by another build")

    with text_engine(bundle):
        pass
    monkeypatch.setattr(openvino.Core, "import_model", refuse)
    with caplog.at_level(logging.WARNING), text_engine(bundle) as engine:
        engine.run(IDS)
    assert "made by another build" in caplog.text
    assert compiled == ["text.onnx"] * 2


def test_a_bundle_that_cannot_be_written_to_is_compiled_each_time(
    bundle: Bundle, compiled: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Bundle, "cache_folder", lambda self: None)
    for _ in range(2):
        with text_engine(bundle) as engine:
            engine.run(IDS)
    assert compiled == ["text.onnx"] * 2


def test_trimmed_engines_run_on(bundle: Bundle) -> None:
    with text_engine(bundle) as engine:
        before = engine.run(IDS)
        engine.trim()
        np.testing.assert_array_equal(engine.run(IDS)["v_00"], before["v_00"])


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells what is mapped")
def test_pages_of_a_mapped_file_are_given_back_and_read_again(tmp_path: Path) -> None:
    file = tmp_path / "with a space.weights"
    np.arange(1 << 20, dtype=np.int32).tofile(file)
    array = np.memmap(file, np.int32, mode="r")
    total = int(array.sum(dtype=np.int64))
    assert _resident(file) > 3 << 20
    mapped.release_mapped([file])
    assert _resident(file) == 0
    with mapped.releasing_mapped([file]):
        assert int(array.sum(dtype=np.int64)) == total
    assert _resident(file) == 0


def _resident(file: Path) -> int:
    """Bytes of a file's mappings that are in this process's memory."""
    total, inside = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if "-" in line.split()[0]:
            inside = line.endswith(str(file))
        elif inside and line.startswith("Rss:"):
            total += int(line.split()[1]) << 10
    return total
