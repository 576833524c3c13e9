"""What a written graph must do, and the errors that say what it does not."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sld_edge.errors import ExportError
from sld_edge.export import check, networks
from sld_edge.export.check import TOLERANCES, Tolerance, check_outputs
from sld_edge.export.checkpoint import open_checkpoint
from sld_edge.export.config import ExportConfig
from sld_edge.export.graphs import decode_graph
from sld_edge.export.networks import NetworkExporter
from sld_edge.manifest import Shape


def exporter_of(checkpoint: Path, folder: Path, **options: Any) -> NetworkExporter:
    """The networks' exporter, to run a single graph of it."""
    return NetworkExporter(
        checkpoint=open_checkpoint(checkpoint),
        config=ExportConfig(checkpoint=checkpoint, out=folder / "bundle", **options),
        shapes=(Shape(height=64, width=64),),
        folder=folder,
        stage=lambda _: contextlib.nullcontext(),
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("damage", "says"),
    [
        ("another network", "the decode graph misses its tolerance: levels error"),
        ("constant", "the decode graph gives a constant image"),
    ],
)
def test_a_graph_that_does_not_do_what_the_checkpoint_does_fails_by_name(
    damage: str,
    says: str,
    tmp_path: Path,
    tiny_checkpoint: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    exporter = exporter_of(tiny_checkpoint, tmp_path)
    load = type(exporter._checkpoint).load_vae

    def grey(self: Any) -> Any:
        vae = load(self)
        torch.nn.init.zeros_(vae.decoder.conv_out.weight)
        torch.nn.init.zeros_(vae.decoder.conv_out.bias)
        return vae

    def another(module: Any, *rest: Any) -> Any:
        with torch.no_grad():
            module.decoder.conv_out.bias += 0.05
        return decode_graph(module, *rest)

    if damage == "constant":
        monkeypatch.setattr(type(exporter._checkpoint), "load_vae", grey)
    else:
        monkeypatch.setattr(networks, "decode_graph", another)
    with pytest.raises(ExportError, match=says):
        exporter.decode()


def test_a_missed_tolerance_is_named_with_error_and_limit(
    tmp_path: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    impossible = {**TOLERANCES["fp32"], "advance": Tolerance(metric="relative_max", limit=-1.0)}
    monkeypatch.setattr(check, "TOLERANCES", {**TOLERANCES, "fp32": impossible})
    with pytest.raises(
        ExportError, match=r"the advance graph misses its tolerance: relative_max error .* limit -1"
    ):
        exporter_of(tiny_checkpoint, tmp_path).advance()


@pytest.mark.parametrize(
    ("kind", "got", "want", "says"),
    [
        ("unet", [1.0, np.nan], [1.0, 2.0], "unet graph gives values that are not finite"),
        ("unet", [1.0, np.inf], [1.0, 2.0], "unet graph gives values that are not finite"),
        ("unet", [1.0, 2.0], [1.0, np.nan], "torch gives values that are not finite"),
        ("unet", [3.0, 3.0], [1.0, 2.0], "unet graph gives constant noise_pred"),
        ("decode", [7, 7], [7, 7], "decode graph gives a constant image"),
        ("unet", [1.0, 2.1], [1.0, 2.0], "unet graph misses its tolerance"),
        ("unet", [1.0, 2.0, 3.0], [1.0, 2.0], "shape"),
    ],
)
def test_outputs_that_cannot_be_right_fail(kind: Any, got: Any, want: Any, says: str) -> None:
    with pytest.raises(ExportError, match=says):
        check_outputs(
            kind,
            "fp32",
            {"noise_pred": np.array(got)},
            {"noise_pred": np.array(want)},
            reference="torch",
        )


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_every_tolerance_lets_its_own_error_pass_and_no_more(precision: Any) -> None:
    want = np.linspace(-2.0, 2.0, 64, dtype=np.float64)
    for kind, tolerance in TOLERANCES[precision].items():
        unit = {"relative_max": 2.0, "relative_rms": np.sqrt((want**2).mean())}
        size = tolerance.limit * unit.get(tolerance.metric, 1.0)
        for factor, passes in ((0.99, True), (1.01, False)):
            outcome = contextlib.nullcontext() if passes else pytest.raises(ExportError, match=kind)
            with outcome:
                check_outputs(
                    kind, precision, {"x": want + size * factor}, {"x": want}, reference="torch"
                )
