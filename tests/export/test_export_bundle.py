"""A bundle is whole or not there at all; what is in it is what the manifest says; what is wrong fails by name."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from sld_edge import SafePipeline
from sld_edge.bundle import Bundle, sha256_of
from sld_edge.errors import ExportError, InvalidInput
from sld_edge.export import check, networks
from sld_edge.export.check import TOLERANCES, Tolerance, check_outputs
from sld_edge.export.checkpoint import open_checkpoint
from sld_edge.export.config import ExportConfig
from sld_edge.export.export_bundle import export_bundle
from sld_edge.export.half import half_from_module
from sld_edge.export.networks import NetworkExporter
from sld_edge.manifest import Policy, Shape
from tests.export.conftest import Network, QuickExporter

QuickType = type[QuickExporter]
STAGES = ["open checkpoint", "tokenizer", "export text", "export decode", "digests"]


def contents(folder: Path) -> dict[str, str]:
    """Everything below a folder, hidden files too, with its digest."""
    return {
        file.relative_to(folder).as_posix(): sha256_of(file) if file.is_file() else "folder"
        for file in sorted(folder.rglob("*"))
    }


@contextlib.contextmanager
def raising(wanted: str, name: str, error: BaseException, *, after: bool) -> Iterator[None]:
    if name == wanted and not after:
        raise error
    yield
    if name == wanted and after:
        raise error


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("planted")], ids=type)
@pytest.mark.parametrize("name", STAGES)
def test_an_export_that_stops_leaves_nothing_and_keeps_the_old_bundle(
    name: str,
    error: BaseException,
    after: bool,
    tmp_path: Path,
    tiny_checkpoint: Path,
    quick: QuickType,
) -> None:
    def stage(current: str) -> Any:
        return raising(name, current, error, after=after)

    out = tmp_path / "bundle"
    with pytest.raises(type(error)):
        export_bundle(ExportConfig(checkpoint=tiny_checkpoint, out=out), stage=stage)
    assert list(tmp_path.iterdir()) == []
    export_bundle(ExportConfig(checkpoint=tiny_checkpoint, out=out))
    before = contents(tmp_path)
    again = ExportConfig(checkpoint=tiny_checkpoint, out=out, force=True, concept="other")
    with pytest.raises(type(error)):
        export_bundle(again, stage=stage)
    assert contents(tmp_path) == before
    assert export_bundle(again).manifest.safety.concept == "other"
    assert [file.name for file in tmp_path.iterdir()] == ["bundle"]


@pytest.mark.parametrize("late", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("which", [0, 1])
def test_an_interrupt_between_the_renames_loses_no_bundle(
    which: int,
    late: bool,
    tmp_path: Path,
    tiny_checkpoint: Path,
    quick: QuickType,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = tmp_path / "bundle"
    old = export_bundle(ExportConfig(checkpoint=tiny_checkpoint, out=out)).digest
    rename, calls = Path.rename, iter(range(100))

    def interrupted(self: Path, target: Path) -> Path:
        hit = next(calls) == which
        if hit and not late:
            raise KeyboardInterrupt
        moved = rename(self, target)
        if hit:
            signal.raise_signal(signal.SIGINT)
        return moved

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        export_bundle(
            ExportConfig(checkpoint=tiny_checkpoint, out=out, force=True, concept="other")
        )
    kept = Bundle.open(out)
    kept.verify()
    assert (kept.digest == old) == ((which, late) != (1, True))
    assert [file.name for file in tmp_path.iterdir()] == ["bundle"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("moment", "number"),
    [("  tokenizer", signal.SIGTERM), ("  export text", signal.SIGINT)],
    ids=["terminated while loading", "Ctrl-C while tracing"],
)
def test_a_signal_ends_the_command_with_one_line_and_nothing_left(
    moment: str, number: signal.Signals, tmp_path: Path, tiny_checkpoint: Path
) -> None:
    """A real process and a real signal, sent while the stage after ``moment`` runs."""
    process = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "from sld_edge.export.cli import main; main()",
            str(tiny_checkpoint),
            str(tmp_path / "bundle"),
        ],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith(moment):
            break
    process.send_signal(number)
    rest = process.stderr.read()
    process.stderr.close()
    assert process.wait() == 130, rest
    assert "Traceback" not in rest
    assert rest.splitlines()[-1].startswith("error: interrupted")
    assert list(tmp_path.iterdir()) == []


def test_an_existing_folder_is_refused_without_force(
    tmp_path: Path, tiny_checkpoint: Path, quick: QuickType
) -> None:
    (tmp_path / "bundle").mkdir()
    with pytest.raises(InvalidInput, match=r"exists already.*--force"):
        export_bundle(ExportConfig(checkpoint=tiny_checkpoint, out=tmp_path / "bundle"))


@pytest.mark.parametrize(
    "files",
    [
        {"thesis.txt": "all of it"},
        {"manifest.json": '{"name": "a web page", "icons": []}', "index.html": ""},
        {"manifest.json": "not JSON"},
        {"manifest.json": "[]"},
    ],
    ids=["a text", "a web page", "no JSON", "a list"],
)
def test_force_replaces_bundles_only(
    files: dict[str, str], tmp_path: Path, tiny_checkpoint: Path, quick: QuickType
) -> None:
    out = tmp_path / "folder"
    out.mkdir()
    for name, text in files.items():
        (out / name).write_text(text)
    before = contents(tmp_path)
    with pytest.raises(InvalidInput, match="replaces bundles only"):
        export_bundle(ExportConfig(checkpoint=tiny_checkpoint, out=out, force=True))
    assert contents(tmp_path) == before


def test_force_does_not_replace_the_checkpoint_or_a_file(
    tmp_path: Path, tiny_checkpoint: Path, quick: QuickType
) -> None:
    (tmp_path / "file").write_text("mine")
    for out in (tiny_checkpoint, tmp_path / "file"):
        with pytest.raises(InvalidInput, match="replaces bundles only"):
            export_bundle(ExportConfig(checkpoint=tiny_checkpoint, out=out, force=True))
    assert (tmp_path / "file").read_text() == "mine"


def test_a_folder_that_appears_during_the_export_is_not_replaced(
    tmp_path: Path, tiny_checkpoint: Path, quick: QuickType
) -> None:
    out = tmp_path / "bundle"

    def someone_writes(_: Path) -> None:
        out.mkdir()
        (out / "thesis.txt").write_text("all of it")

    quick.trouble = staticmethod(someone_writes)
    with pytest.raises(InvalidInput, match="exists already"):
        export_bundle(ExportConfig(checkpoint=tiny_checkpoint, out=out))
    assert contents(tmp_path).keys() == {"bundle", "bundle/thesis.txt"}


# --- what a graph must do ------------------------------------------------------------------------------


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

    decode_graph = networks.decode_graph
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


# --- what is in a bundle -------------------------------------------------------------------------------


def test_the_manifests_digests_are_the_files(tiny_bundle: Path) -> None:
    bundle = Bundle.open(tiny_bundle)
    found = {k: v for k, v in contents(tiny_bundle).items() if v != "folder"}
    found.pop("manifest.json")
    found = {name: digest for name, digest in found.items() if not name.startswith("cache/")}
    assert {name: file.sha256 for name, file in bundle.manifest.files.items()} == found
    for name, file in bundle.manifest.files.items():
        assert (tiny_bundle / name).stat().st_size == file.size
    listed = {graph.file for graph in bundle.manifest.graphs}
    listed |= {weights for graph in bundle.manifest.graphs for weights in graph.weights}
    assert {name for name in found if name.startswith("graphs/")} == listed


def test_the_manifest_says_what_it_was_made_from(tiny_bundle: Path, tiny_checkpoint: Path) -> None:
    manifest = Bundle.open(tiny_bundle).manifest
    assert manifest.source.name == tiny_checkpoint.name
    assert manifest.source.weights == {
        file.relative_to(tiny_checkpoint).as_posix(): sha256_of(file)
        for file in tiny_checkpoint.rglob("*.safetensors")
    }
    assert manifest.tools["torch"] == torch.__version__
    assert {graph.kind for graph in manifest.graphs} == {
        "text",
        "unet",
        "decode",
        "safety",
        "advance",
        "advance_many",
    }
    for graph in manifest.graphs:
        assert 0.0 <= graph.check.max_abs_error <= graph.check.tolerance, graph.file
        assert graph.check.reference.startswith(("torch", "numpy"))


def test_no_path_of_the_exporting_machine_is_in_a_bundle(
    tiny_bundle: Path, tiny_checkpoint: Path
) -> None:
    private = [str(Path.home()), str(tiny_checkpoint.parent), str(Path(torch.__file__).parent)]
    for file in tiny_bundle.rglob("*"):
        if file.is_file() and "cache" not in file.parts:
            data = file.read_bytes()
            for path in private:
                assert path.encode() not in data, f"{file.name} names {path}"


def test_the_card_names_concept_policy_and_licence(
    tmp_path: Path, tiny_checkpoint: Path, quick: QuickType
) -> None:
    strict = ExportConfig(
        checkpoint=tiny_checkpoint,
        out=tmp_path / "strict",
        concept="weapons, blood",
        safety_default="strong",
        policy=Policy(minimum="medium", concept="required", unsafe_images="withhold"),
        licence="creativeml-openrail-m",
    )
    card = (export_bundle(strict).path / "CARD.md").read_text()
    for words in (
        "> weapons, blood",
        "**strong**",
        "nothing weaker than **medium**",
        "no call can name another",
        "never handed out",
        "creativeml-openrail-m",
        "What is not covered",
        "Intended use",
    ):
        assert words in card, words
    free = ExportConfig(checkpoint=tiny_checkpoint, out=tmp_path / "free", safety_head=False)
    card = (export_bundle(free).path / "CARD.md").read_text()
    for words in ("turns it off", "safety_concept=", "unknown", "no safety checker"):
        assert words in card, words


# --- half precision ------------------------------------------------------------------------------------


def test_halving_a_network_says_nothing(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    from diffusers.models import modeling_utils

    unet = network("unet")
    said: list[object] = []
    monkeypatch.setattr(modeling_utils.logger, "warning", said.append)
    half_from_module(unet)
    assert unet.conv_in.weight.dtype == torch.float16
    assert unet.conv_norm_out.inner.weight.dtype == torch.float32
    assert said == []


@pytest.fixture(scope="module")
def half_bundle(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path) -> Path:
    out = tmp_path_factory.mktemp("half") / "bundle"
    config = ExportConfig(checkpoint=tiny_checkpoint, out=out, precision="fp16")
    return export_bundle(config).path


@pytest.mark.slow
def test_a_half_precision_bundle_passes_its_own_checks(
    half_bundle: Path, tiny_bundle: Path
) -> None:
    bundle = Bundle.open(half_bundle)
    bundle.verify()
    assert bundle.manifest.precision == "fp16"
    for graph in bundle.manifest.graphs:
        tolerance = TOLERANCES["fp16"][graph.kind]
        assert graph.check.metric == tolerance.metric
        assert graph.check.tolerance == tolerance.limit
        assert graph.check.max_abs_error <= tolerance.limit
    for name in ("unet", "text", "decode"):
        half, single = (b / "graphs" / f"{name}.weights" for b in (half_bundle, tiny_bundle))
        assert half.stat().st_size < 0.75 * single.stat().st_size, name


@pytest.mark.slow
def test_state_guidance_scheduler_and_norms_stay_in_single_precision(half_bundle: Path) -> None:
    for graph in Bundle.open(half_bundle).manifest.graphs:
        context = {"k_", "v_"}
        for tensor in (*graph.inputs, *graph.outputs):
            if tensor.name[:2] in context:
                assert tensor.dtype == "float16", f"{graph.kind}: {tensor.name}"
            else:
                assert tensor.dtype != "float16", f"{graph.kind}: {tensor.name}"
        types = types_of(half_bundle / graph.file)
        half = onnx.TensorProto.FLOAT16
        model = onnx.load(str(half_bundle / graph.file), load_external_data=False)
        if graph.kind.startswith("advance"):
            assert half not in types.values()
            continue
        norms = 0
        for node in model.graph.node:
            if "Normalization" in node.op_type:
                norms += 1
                assert types[node.input[0]] == onnx.TensorProto.FLOAT, f"{graph.kind}: {node.name}"
            if node.op_type == "Conv":
                assert types[node.output[0]] == half, f"{graph.kind}: {node.name}"
        assert norms, f"{graph.kind} has no normalisation to look at"


def types_of(file: Path) -> dict[str, int]:
    """Element type of every value of a graph."""
    model = onnx.shape_inference.infer_shapes(onnx.load(str(file), load_external_data=False))
    graph = model.graph
    values = [*graph.input, *graph.output, *graph.value_info]
    types = {value.name: value.type.tensor_type.elem_type for value in values}
    return {**types, **{tensor.name: tensor.data_type for tensor in graph.initializer}}


@pytest.mark.slow
def test_a_half_precision_bundle_makes_nearly_the_same_picture(
    half_bundle: Path, tiny_bundle: Path
) -> None:
    pictures = []
    for bundle in (tiny_bundle, half_bundle):
        with SafePipeline.from_pretrained(bundle, "onnxruntime:cpu") as pipe:
            made = pipe(
                "a castle by a lake",
                num_inference_steps=15,
                seed=5,
                safety="medium",
                output_type="np",
            )
        pictures.append(np.asarray(made.images[0], np.float64))
    assert np.isfinite(pictures[1]).all()
    error = float(np.mean((pictures[0] - pictures[1]) ** 2))
    psnr = -10 * np.log10(error)
    assert psnr >= 45.0, f"{psnr:.1f} dB"


def test_the_quick_exporter_stands_where_the_real_one_does(quick: QuickType) -> None:
    module = import_module("sld_edge.export.export_bundle")
    assert module.NetworkExporter is quick
    for name in ("text_and_unet", "decode", "safety", "advance", "close"):
        assert callable(getattr(NetworkExporter, name))
