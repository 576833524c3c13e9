"""The networks of one checkpoint, exported one after the other so that only one is in memory."""

from __future__ import annotations

import gc
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sld_edge.export.branched_unet import BranchedUNet, layers_from_unet
from sld_edge.export.checkpoint import Checkpoint
from sld_edge.export.config import ExportConfig
from sld_edge.export.graph_writer import HEAD_OUTPUTS, SAMPLE_TEXTS, GraphWriter, sample_pictures
from sld_edge.export.graphs import (
    decode_graph,
    quiet_torch,
    safety_graph,
    text_graph,
    unet_graph,
)
from sld_edge.export.half import half_from_module
from sld_edge.export.lighter import lightened
from sld_edge.export.modules import PixelDecoder, SafetyHead, TextContext
from sld_edge.export.samples import latent_samples
from sld_edge.export.weights import WeightFile
from sld_edge.manifest import Shape
from sld_edge.runtime.tokenize import Tokenizer

Arrays = Mapping[str, NDArray[Any]]

_TORCH = f"torch {torch.__version__}"
#: With latents up to this many elements a second check with other R and B costs next to nothing.
_SMALL_LATENTS = 32 * 32


class NetworkExporter(GraphWriter):
    """Writes the graphs of a checkpoint into a folder and keeps what the manifest says of them."""

    def __init__(
        self,
        *,
        checkpoint: Checkpoint,
        config: ExportConfig,
        shapes: Sequence[Shape],
        folder: Path,
        stage: Any,
    ) -> None:
        super().__init__(
            config=config, shapes=shapes, folder=folder, stage=stage, reference=_TORCH,
            factor=checkpoint.vae_scale_factor,
        )  # fmt: skip
        self._checkpoint = checkpoint
        torch.manual_seed(0)

    def text_and_unet(self, tokenizer: Tokenizer) -> None:
        """``text`` and ``unet``: the projections of keys and values move from the second to the first."""
        with self._stage("load unet and text encoder"), quiet_torch():
            unet = self._checkpoint.load_unet().eval()
            text_encoder = self._checkpoint.load_text_encoder().eval()
        self.cross_attention = layers_from_unet(unet)
        layers = len(self.cross_attention)
        ids = torch.from_numpy(tokenizer.encode(SAMPLE_TEXTS, what="prompt").ids)
        text = TextContext(text_encoder, unet)
        with torch.no_grad(), quiet_torch():
            hidden = text_encoder(ids).last_hidden_state
            rows = [row.numpy() for row in text(ids)]
        names = [f"{kind}_{index:02d}" for index in range(layers) for kind in "kv"]
        checked = self._config.checks
        checks = [
            self._unet_reference(unet, hidden, shape) if checked else [] for shape in self._shapes
        ]
        channels = unet.config.in_channels
        branched = BranchedUNet(unet)
        del unet
        if self._half:
            text, branched = half_from_module(text), half_from_module(branched)
            branched.unet.time_embedding.float()
        with self._stage("export text"):
            model = text_graph(text, layers, ids.shape[1], self._config.opset)
            with WeightFile(self._folder / "text.weights") as weights:
                self._write("text", model, weights, None)
            if checked:
                self._check("text", {"input_ids": ids.numpy()}, dict(zip(names, rows, strict=True)))
            else:
                self._leave_unchecked()
        with WeightFile(self._folder / "unet.weights") as weights:
            for shape, samples in zip(self._shapes, checks, strict=True):
                with self._stage(f"export unet {shape.height}x{shape.width}"):
                    latents = torch.zeros(2, channels, *self._latent_size(shape))
                    context = [torch.from_numpy(row[None, :2].repeat(3, 0)) for row in rows]
                    if self._half:
                        context = [row.half() for row in context]
                    example = [latents, torch.ones(1), torch.ones(1), *context]
                    model = unet_graph(branched, layers, example, self._config.opset)
                    self._write("unet", model, weights, shape)
                first: Any = ()
                with self._stage(f"check unet {shape.height}x{shape.width}"):
                    for grid, inputs, want in samples:
                        dtype = np.float16 if self._half else np.float32
                        kv = {
                            name: np.ascontiguousarray(row[grid].astype(dtype))
                            for name, row in zip(names, rows, strict=True)
                        }
                        self._check("unet", {**inputs, **kv}, {"noise_pred": want})
                        first = first or ({**inputs, **kv}, {"noise_pred": want})
                    if not checked:
                        self._leave_unchecked()
                        first = {}, {}
                self._add_variants(*first)
        del branched, text_encoder, text
        gc.collect()

    def decode(self) -> None:
        """``decode`` for every size."""
        with self._stage("load vae"), quiet_torch():
            vae = self._checkpoint.load_vae().eval()
        plain = PixelDecoder(vae)
        samples = []
        for shape in self._shapes:
            size = (self._checkpoint.latent_channels, *self._latent_size(shape))
            kinds = [torch.from_numpy(one) for one in latent_samples(*size)]
            kinds = kinds if self._config.checks else []
            with torch.no_grad():
                samples.append(
                    [(one.numpy(), [out.numpy() for out in plain(one)]) for one in kinds]
                )
        decoder = lightened(plain)
        del vae, plain
        if self._half:
            decoder = half_from_module(decoder)
        with WeightFile(self._folder / "decode.weights") as weights:
            for shape, kinds in zip(self._shapes, samples, strict=True):
                with self._stage(f"export decode {shape.height}x{shape.width}"):
                    size = (self._checkpoint.latent_channels, *self._latent_size(shape))
                    model = decode_graph(decoder, size, self._config.opset)
                    self._write("decode", model, weights, shape)
                    for index, (latents, (images, mean)) in enumerate(kinds):
                        want = {"images": images, "raw_mean": mean}
                        self._check("decode", {"latents": latents}, want, ordinary=index == 0)
                    if not kinds:
                        self._leave_unchecked()
                if kinds:
                    latents, (images, mean) = kinds[0]
                    self._add_variants({"latents": latents}, {"images": images, "raw_mean": mean})
                else:
                    self._add_variants({}, {})

    def safety(self) -> None:
        """``safety`` for every size."""
        with self._stage("load safety checker"), quiet_torch():
            checker = self._checkpoint.load_safety_checker().eval()
        processor = self._checkpoint.feature_extractor_config
        images = [sample_pictures(shape) for shape in self._shapes]
        wanted = []
        for shape, pixels in zip(self._shapes, images, strict=True):
            head = SafetyHead(checker, processor, shape.height, shape.width)
            with torch.no_grad():
                outputs = head(torch.from_numpy(pixels)) if self._config.checks else ()
            found = [array.numpy() for array in outputs]
            wanted.append(dict(zip(HEAD_OUTPUTS, found, strict=False)))
        with WeightFile(self._folder / "safety.weights") as weights:
            for shape, pixels, want in zip(self._shapes, images, wanted, strict=True):
                with self._stage(f"export safety {shape.height}x{shape.width}"):
                    head = SafetyHead(checker, processor, shape.height, shape.width)
                    if self._half:
                        _half_networks_of(head)
                    model = safety_graph(head, shape.height, shape.width, self._config.opset)
                    self._write("safety", model, weights, shape)
                    if want:
                        self._check("safety", {"images": pixels}, want)
                    else:
                        self._leave_unchecked()

    def _unet_reference(self, unet: Any, hidden: Any, shape: Shape) -> list[Any]:
        """Inputs and the checkpoint's own predictions: as (rows of the texts, inputs, noise_pred)."""
        height, width = self._latent_size(shape)
        unusual = [
            torch.from_numpy(one)
            for one in latent_samples(unet.config.in_channels, height, width)[1:]
        ]
        kinds = [
            (np.array([[0], [1], [2]]), torch.randn(1, unet.config.in_channels, height, width)),
            *((np.array([[0], [1]]), latents) for latents in unusual),
        ]
        if height * width <= _SMALL_LATENTS:
            both = torch.randn(2, unet.config.in_channels, height, width)
            kinds.append((np.array([[0, 1], [2, 0]]), both))
        samples = []
        with self._stage(f"run torch's unet {shape.height}x{shape.width}"), torch.no_grad():
            for grid, latents in kinds:
                branches, batch = grid.shape
                timestep = torch.tensor([421.0])
                out = unet(
                    torch.cat([latents * 0.75] * branches),
                    timestep,
                    encoder_hidden_states=hidden[torch.from_numpy(grid.reshape(-1))],
                ).sample
                inputs = {
                    "latents": latents.numpy(),
                    "input_scale": np.array([0.75], np.float32),
                    "timestep": timestep.numpy(),
                }
                samples.append((grid, inputs, out.unflatten(0, (branches, batch)).numpy()))
        return samples


def _half_networks_of(head: SafetyHead) -> None:
    """The vision network in float16; resizing and scores stay in float32."""
    half_from_module(head.vision_model)
    head.visual_projection.half()
