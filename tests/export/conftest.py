"""Fixtures of the export's tests: single networks, so that most tests need no whole bundle."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from sld_edge import shell
from sld_edge.bundle import sha256_of
from sld_edge.export import random_checkpoint
from sld_edge.export.architectures import ARCHITECTURES
from sld_edge.export.checkpoint import quietly
from sld_edge.export.graphs import quiet_torch
from sld_edge.export.random_weights import by_torch

#: A network of the random checkpoint's making, read back as the exporter would read it.
Network = Callable[..., Any]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Networks of a few thousand weights lose time to threads that wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def network(tmp_path: Path) -> Network:
    """``network("unet", **options)``: one tiny network with random weights, in evaluation mode."""

    def make(kind: str, **options: Any) -> Any:
        torch.manual_seed(0)
        folder = tmp_path / kind
        with quietly(kind), quiet_torch(), torch.no_grad():
            write = getattr(random_checkpoint, f"_write_{kind}")
            write(
                folder,
                ARCHITECTURES["tiny"],
                torch.float32,
                0,
                options,
                make=by_torch,
            )
            return _class_of(kind).from_pretrained(folder).eval().requires_grad_(False)

    return make


def _class_of(kind: str) -> Any:
    import diffusers
    from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker

    return {
        "unet": diffusers.UNet2DConditionModel,
        "vae": diffusers.AutoencoderKL,
        "safety_checker": StableDiffusionSafetyChecker,
    }[kind]


@dataclass
class Run:
    """What a shell command left."""

    status: int
    out: str
    err: str

    def refuses(self, status: int, *words: str) -> None:
        """One line on standard error with these words in it, nothing on standard output, that exit status."""
        assert "Traceback" not in self.err
        assert self.out == ""
        assert self.err.startswith("error: "), self.err
        assert self.err.count("\n") == 1, self.err
        for word in words:
            assert word in self.err, self.err
        assert self.status == status, self.err


Shell = Callable[..., Run]


@pytest.fixture
def sld_export(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    """``sld_export("checkpoint", "out", "--force")`` as from a shell, without progress."""
    from sld_edge.export.cli import main

    monkeypatch.setattr(shell, "quiet_logging", lambda: None)  # it would outlive the test

    def run(*arguments: object) -> Run:
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            main.main([os.fspath(one) if isinstance(one, Path) else str(one) for one in arguments])
        out, err = capsys.readouterr()
        code = left.value.code
        return Run(code if isinstance(code, int) else int(code is not None), out, err)

    return run


class QuickExporter:
    """In the place of the networks' exporter: writes a file instead of a graph, at once."""

    #: What ``decode`` does instead of nothing.
    trouble: ClassVar[Callable[[Path], None] | None] = None

    def __init__(self, *, folder: Path, stage: Any, **_: Any) -> None:
        self.graphs: list[Any] = []
        self.cross_attention: tuple[Any, ...] = ()
        self._folder = folder
        self._stage = stage

    def text_and_unet(self, _: Any) -> None:
        with self._stage("export text"):
            (self._folder / "text.onnx").write_bytes(b"text")

    def decode(self) -> None:
        with self._stage("export decode"):
            trouble = type(self).trouble
            if trouble is not None:
                trouble(self._folder)

    def safety(self) -> None:
        """Nothing."""

    def advance(self) -> None:
        """Nothing."""

    def words(self, _: Any) -> None:
        """Without a text encoder no harm's words are told from others."""

    def close(self) -> None:
        """Nothing."""


#: What the fixture ``quick`` hands out, for tests to plant trouble in.
QuickType = type[QuickExporter]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> type[QuickExporter]:
    """Exports take no time: everything around the networks is real, the networks are left out."""
    from importlib import import_module

    exporter = type("Quick", (QuickExporter,), {"trouble": None})
    module = import_module("sld_edge.export.export_bundle")
    monkeypatch.setattr(module, "NetworkExporter", exporter)
    return exporter


def contents(folder: Path) -> dict[str, str]:
    """Everything below a folder, hidden files too, with its digest."""
    return {
        file.relative_to(folder).as_posix(): sha256_of(file) if file.is_file() else "folder"
        for file in sorted(folder.rglob("*"))
    }
