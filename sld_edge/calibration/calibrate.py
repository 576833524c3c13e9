"""A bundle becomes a bundle that may also compute in 8 bits: calibrated, compared, and renamed into place."""

from __future__ import annotations

import datetime
import shutil
from contextlib import nullcontext
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import msgspec

from sld_edge import __version__
from sld_edge.bundle import CACHE_NAME, CARD_NAME, MANIFEST_NAME, Bundle, file_from_path
from sld_edge.calibration.config import CalibrationConfig, Stage
from sld_edge.calibration.edit import load_model
from sld_edge.calibration.measure_unet import UnetRuns
from sld_edge.calibration.proof import proofs_from
from sld_edge.calibration.ranges import Range
from sld_edge.calibration.rewrite import quantise
from sld_edge.calibration.sensitivity import blocks_to_keep
from sld_edge.calibration.sites import group_of, sites_of
from sld_edge.calibration.trajectories import HELD_OUT, presets_within, prompts_from, trajectories
from sld_edge.engines.base import EngineOptions
from sld_edge.errors import CalibrationError, InvalidInput, MissingDependency
from sld_edge.export.card import card_from_manifest
from sld_edge.export.target import check_target, claimed
from sld_edge.export.weights import WeightFile
from sld_edge.manifest import Graph, Int8, Manifest
from sld_edge.manifest_json import json_from_manifest
from sld_edge.runtime.pipeline import SafePipeline

_TOOLS = ("openvino", "onnx-ir", "numpy")
#: Seeds of the pictures compared on are far from those calibrated on.
_SEEDS = {"calibrate": 0, "compare": 1_000_000}


def calibrate_bundle(
    config: CalibrationConfig, *, stage: Stage = lambda _: nullcontext()
) -> Bundle:
    """Write a copy of a bundle whose UNet may compute in 8 bits where a call allows it.

    The copy is written beside its final place and renamed when it is complete and has passed the comparison: a
    calibration that fails or is interrupted leaves nothing, and the bundle it reads is never changed.

    Raises:
        InvalidInput: the bundle is not fp32, or is calibrated already, or ``out`` exists.
        BundleError: the bundle is damaged.
        MissingDependency: openvino or onnx-ir is not installed.
        CalibrationError: in 8 bits safety would not act as in full precision; names the figure.
    """
    bundle = Bundle.open(config.bundle)
    _check(bundle, config)
    out = config.out.absolute()
    with claimed(out, force_option="") as folder:
        with stage("digests"):
            bundle.verify(full=True)
        prompts = prompts_from(config.prompts, bundle)
        with stage("copy"):
            for name in bundle.manifest.files:
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                # Copied, not linked: ONNX tools refuse weights that have a second name.
                shutil.copyfile(bundle.file(name), folder / name)
        copy = Bundle(path=folder, manifest=bundle.manifest)
        graphs = _calibrated(copy, config, prompts[: config.pictures or None], stage)
        _finish(copy, graphs, stage)
    return Bundle.open(out)


def _check(bundle: Bundle, config: CalibrationConfig) -> None:
    manifest = bundle.manifest
    check_target(config.out, force=False, force_option="")
    if manifest.precision != "fp32":
        raise InvalidInput(
            "only an fp32 bundle can be calibrated, this one is",
            value=manifest.precision,
            hint="export again with --precision fp32",
        )
    if any(isinstance(graph.int8, Int8) for graph in manifest.graphs):
        raise InvalidInput(
            "the bundle has graphs in 8 bits already",
            value=str(config.bundle),
            hint="calibrate the one it was made from",
        )
    for package in _TOOLS:
        try:
            version(package)
        except PackageNotFoundError:
            raise MissingDependency(
                f"calibrating needs {package}", hint="pip install 'sld-edge[calibrate]'"
            ) from None


def _calibrated(
    bundle: Bundle, config: CalibrationConfig, prompts: tuple[str, ...], stage: Stage
) -> tuple[Graph, ...]:
    """The bundle's graphs, those of the UNet with their 8-bit files, which lie in the folder then."""
    presets = presets_within(SafePipeline(bundle, EngineOptions()))
    seen = list(trajectories(prompts, presets, first_seed=_SEEDS["calibrate"]))
    held = (HELD_OUT * config.compared)[: config.compared]
    # Both prompts meet both presets: the presets change every two pictures.
    order = [presets[index // len(HELD_OUT) % 2] for index in range(config.compared)]
    unseen = [
        picture
        for index, (text, preset) in enumerate(zip(held, order, strict=True))
        for picture in trajectories([text], [preset], first_seed=_SEEDS["compare"] + index)
    ]
    graphs = []
    with WeightFile(bundle.path / "graphs" / "unet-int8.weights") as weights:
        for graph in bundle.manifest.graphs:
            if graph.kind != "unet":
                graphs.append(graph)
                continue
            runs = UnetRuns(bundle, graph, config, stage)
            ranges, samples = runs.ranges(seen)
            calibrated_on = runs.evaluations
            kept = blocks_to_keep(runs.noise(ranges, samples), config.noise_budget)
            with stage(f"quantise {graph.height}x{graph.width}"):
                file, layers, group = _write(bundle, graph, ranges, kept, weights)
            figures = runs.compare(file, group, unseen)
            proofs = proofs_from(figures)
            failed = [proof for proof in proofs if not proof.holds]
            if failed:
                raise CalibrationError(
                    f"in 8 bits safety would not act as in full precision: {graph.kind} "
                    f"{graph.height}x{graph.width}, "
                    + ", ".join(f"{p.name} {p.worst:.3g} (limit {p.limit:g})" for p in failed),
                    hint="a smaller --noise-budget keeps more layers in higher precision",
                )
            int8 = Int8(
                file=f"graphs/{file.name}",
                weights=(f"graphs/{weights.path.name}",),
                layers=tuple(layers),
                kept=kept,
                noise_budget=config.noise_budget,
                calibrated_on=calibrated_on,
                compared_on=runs.evaluations,
                proofs=proofs,
                created=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
                tools={"sld-edge": __version__, **{tool: version(tool) for tool in _TOOLS}},
                group=group,
            )
            graphs.append(msgspec.structs.replace(graph, int8=int8))
    return tuple(graphs)


def _write(
    bundle: Bundle,
    graph: Graph,
    ranges: dict[str, Range],
    kept: dict[str, float],
    weights: WeightFile,
) -> tuple[Path, list[str], int]:
    import onnx_ir

    model = load_model(bundle.file(graph.file))
    group = group_of(sites_of(model.graph))
    layers = quantise(model, ranges, keep=kept)
    full = bundle.file(graph.file)
    file = full.with_name(f"{full.stem}-int8.onnx")
    weights.move_from(model)
    onnx_ir.save(model, file)
    return file, layers, group


def _finish(bundle: Bundle, graphs: tuple[Graph, ...], stage: Stage) -> None:
    folder = bundle.path
    shutil.rmtree(folder / CACHE_NAME, ignore_errors=True)
    with stage("digests of the new files"):
        manifest: Manifest = msgspec.structs.replace(
            # What was shown of the bundle it was made from, was not shown of this one.
            bundle.manifest,
            graphs=graphs,
            gates=msgspec.UNSET,
        )
        (folder / CARD_NAME).write_text(card_from_manifest(manifest), "utf-8")
        files = dict(manifest.files)
        new = {name for graph in graphs if isinstance(graph.int8, Int8)
               for name in (graph.int8.file, *graph.int8.weights)}  # fmt: skip
        for name in (CARD_NAME, *sorted(new)):
            files[name] = file_from_path(folder / name)
        manifest = msgspec.structs.replace(manifest, files=files)
        (folder / MANIFEST_NAME).write_bytes(json_from_manifest(manifest))
