"""The networks of an ONNX folder, made into the bundle's graphs and compared with the folder's own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir
import onnxruntime
from numpy.typing import NDArray

from sld_edge.errors import UnsupportedCheckpoint
from sld_edge.export.check import run_graph
from sld_edge.export.config import ExportConfig
from sld_edge.export.graph_writer import SAMPLE_TEXTS, GraphWriter, sample_pictures
from sld_edge.export.image_processor import image_processor_from
from sld_edge.export.onnx_folder.clip_vision import Checker
from sld_edge.export.onnx_folder.decode import decode_model
from sld_edge.export.onnx_folder.denoiser import split_denoiser
from sld_edge.export.onnx_folder.folder import OnnxFolder
from sld_edge.export.onnx_folder.graphs import DECODER, TEXT_ENCODER, UNET
from sld_edge.export.onnx_folder.onnx_checker import OnnxChecker
from sld_edge.export.onnx_folder.plain import PlainGraph, evaluated
from sld_edge.export.onnx_folder.roles import IDS, LATENTS, STEP, TEXT
from sld_edge.export.onnx_folder.safety import safety_model
from sld_edge.export.onnx_folder.text import check_width, text_model
from sld_edge.export.samples import latent_samples
from sld_edge.export.weights import WeightFile
from sld_edge.manifest import CrossAttention, Shape
from sld_edge.runtime.tokenize import Tokenizer

_SCALE, _TIME = 0.75, 421.0


class OnnxNetworks(GraphWriter):
    """Writes the graphs of an ONNX folder into a bundle's and keeps what the manifest says of them."""

    def __init__(
        self,
        *,
        checkpoint: OnnxFolder,
        config: ExportConfig,
        shapes: Sequence[Shape],
        folder: Path,
        stage: Any,
    ) -> None:
        super().__init__(
            config=config, shapes=shapes, folder=folder, stage=stage,
            reference=f"the folder's own graphs, onnxruntime {onnxruntime.__version__}",
            factor=checkpoint.vae_scale_factor,
        )  # fmt: skip
        self._checkpoint = checkpoint

    def text_and_unet(self, tokenizer: Tokenizer) -> None:
        """``text`` and ``unet``: the projections of keys and values move from the second to the first."""
        folder, config = self._checkpoint, self._config
        ids = tokenizer.encode(SAMPLE_TEXTS, what="prompt").ids
        tokens = ids.shape[1]
        folder.check_length(tokens)
        rows: dict[str, NDArray[Any]] = {}
        hidden = None
        if config.checks:
            with self._stage("run the folder's text encoder"):
                hidden = PlainGraph(folder.file(TEXT_ENCODER), "last_hidden_state").run({IDS: ids})
                check_width(hidden.shape[-1], folder.width)
        with WeightFile(self._folder / "unet.weights") as weights:
            for index, shape in enumerate(self._shapes):
                size = f"{shape.height}x{shape.width}"
                with self._stage(f"export unet {size}"):
                    latents = (folder.latent_channels, *self._latent_size(shape))
                    made = split_denoiser(
                        folder.model(UNET), latents, tokens=tokens, width=folder.width, opset=config.opset
                    )  # fmt: skip
                if index == 0:
                    self._write_text(made, ids, hidden, rows)
                with self._stage(f"write unet {size}"):
                    self._write("unet", made.unet, weights, shape)
                with self._stage(f"check unet {size}"):
                    samples = self._samples(latents, hidden) if hidden is not None else []
                    first: Any = ({}, {})
                    for number, (grid, inputs, want) in enumerate(samples):
                        kv = {name: np.ascontiguousarray(row[grid]) for name, row in rows.items()}
                        self._check("unet", {**inputs, **kv}, {"noise_pred": want})
                        first = first if number else ({**inputs, **kv}, {"noise_pred": want})
                    if not samples:
                        self._leave_unchecked()
                self._add_variants(*first)

    def _write_text(
        self, made: Any, ids: NDArray[np.int64], hidden: Any, rows: dict[str, NDArray[Any]]
    ) -> None:
        """The text graph, compared with its context half on the folder's own hidden states; ``rows`` is filled."""
        folder = self._checkpoint
        self.cross_attention = tuple(CrossAttention(**layer._asdict()) for layer in made.layers)
        if len(made.layers) > _MOST_LAYERS:
            raise UnsupportedCheckpoint(
                "the UNet has more cross-attention layers than a bundle can name"
            )
        with self._stage("export text"):
            want = {}
            if hidden is not None:
                half = self._folder / "context.onnx"
                with WeightFile(half.with_suffix(".weights")) as weights:
                    weights.move_from(made.context)
                onnx_ir.save(made.context, half)
                kind = made.context.graph.inputs[0].dtype.numpy()
                want = run_graph(half, {TEXT: hidden.astype(kind)})
            model = text_model(
                folder.model(TEXT_ENCODER), made.context, tokens=ids.shape[1], width=folder.width,
                opset=self._config.opset,
            )  # fmt: skip
            with WeightFile(self._folder / "text.weights") as weights:
                self._write("text", model, weights, None)
            if want:
                self._check("text", {IDS: ids}, want)
            else:
                self._leave_unchecked()
            rows |= run_graph(self._folder / "text.onnx", {IDS: ids}) if want else {}
            for file in self._folder.glob("context.*"):
                file.unlink()

    def _samples(self, size: tuple[int, int, int], hidden: NDArray[Any]) -> list[Any]:
        """Inputs and the folder's own predictions: as (rows of the texts, inputs, noise_pred)."""
        plain = PlainGraph(self._checkpoint.file(UNET), "out_sample", single_rows=(STEP,))
        normal, *unusual = latent_samples(*size)
        kinds = [
            (np.array([[0], [1], [2]]), normal),
            *((np.array([[0], [1]]), one) for one in unusual),
        ]
        kinds.append((np.array([[0, 1], [2, 0]]), np.concatenate([normal, normal[:, ::-1]])))
        samples = []
        for grid, latents in kinds:
            feeds = {
                LATENTS: np.tile(latents * np.float32(_SCALE), (len(grid), 1, 1, 1)),
                TEXT: hidden[grid.reshape(-1)],
                STEP: np.array([_TIME], np.float32),
            }
            out = plain.run(feeds).astype(np.float32)
            inputs = {
                "latents": np.ascontiguousarray(latents),
                "input_scale": np.array([_SCALE], np.float32),
                "timestep": np.array([_TIME], np.float32),
            }
            samples.append((grid, inputs, out.reshape(*grid.shape, *out.shape[1:])))
        return samples

    def decode(self) -> None:
        """``decode`` for every size."""
        folder = self._checkpoint
        with WeightFile(self._folder / "decode.weights") as weights:
            for shape in self._shapes:
                size = f"{shape.height}x{shape.width}"
                latents = (folder.latent_channels, *self._latent_size(shape))
                with self._stage(f"export decode {size}"):
                    model = decode_model(
                        folder.model(DECODER),
                        latents,
                        scaling=folder.scaling_factor,
                        opset=self._config.opset,
                    )
                    self._write("decode", model, weights, shape)
                samples = latent_samples(*latents) if self._config.checks else []
                first: Any = ({}, {})
                with self._stage(f"check decode {size}"):
                    plain = PlainGraph(folder.file(DECODER), "sample") if samples else None
                    for number, one in enumerate(samples):
                        assert plain is not None
                        image = plain.run(
                            {"latent_sample": one / np.float32(folder.scaling_factor)}
                        )
                        want = _pixels(image.astype(np.float32))
                        self._check("decode", {"latents": one}, want, ordinary=number == 0)
                        first = first if number else ({"latents": one}, want)
                if not samples:
                    self._leave_unchecked()
                self._add_variants(*first)

    def safety(self) -> None:
        """``safety`` for every size."""
        folder = self._checkpoint
        assert folder.checker is not None
        with self._stage("load safety checker"):
            checker = self._checker(folder.checker)
        with WeightFile(self._folder / "safety.weights") as weights:
            for shape in self._shapes:
                with self._stage(f"export safety {shape.height}x{shape.width}"):
                    size = (shape.height, shape.width)
                    config = folder.feature_extractor_config
                    model = safety_model(
                        checker.embed_model(self._config.opset), checker.concepts(), config, size,
                        opset=self._config.opset,
                    )  # fmt: skip
                    self._write("safety", model, weights, shape)
                    if not self._config.checks:
                        self._leave_unchecked()
                        continue
                    pictures = {"images": sample_pictures(shape)}
                    file = self._folder / Path(self._pending.file).name
                    want = evaluated(file, pictures)
                    self._check("safety", pictures, want, reference=f"onnx {onnx.__version__}")

    def _checker(self, folder: Path) -> Checker | OnnxChecker:
        """The safety checker, which is a graph or weights."""
        if not (folder / "model.onnx").is_file():
            return Checker(folder)
        shape = self._shapes[0]
        processor = image_processor_from(self._checkpoint.feature_extractor_config)
        return OnnxChecker(folder, processor.processed(shape.height, shape.width)[0])


#: ``k_99`` is the last that two digits name.
_MOST_LAYERS = 100


def _pixels(image: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
    """Pictures ``[B, 3, H, W]`` as diffusers makes them of a decoder's output: pixels, and the mean."""
    levels = np.rint(np.clip(image / 2 + np.float32(0.5), 0, 1) * np.float32(255))
    return {
        "images": levels.transpose(0, 2, 3, 1).astype(np.uint8),
        "raw_mean": image.mean(axis=(1, 2, 3)),
    }
