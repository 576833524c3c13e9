"""The networks of one checkpoint, exported one after the other so that only one is in memory."""

from __future__ import annotations

import gc
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir
import torch
from numpy.typing import NDArray

from sld_edge.export.branched_unet import BranchedUNet, layers_from_unet
from sld_edge.export.check import check_outputs, run_graph
from sld_edge.export.checkpoint import Checkpoint
from sld_edge.export.config import ExportConfig
from sld_edge.export.graphs import (
    advance_graph,
    decode_graph,
    quiet_torch,
    safety_graph,
    text_graph,
    unet_graph,
)
from sld_edge.export.half import half_from_module
from sld_edge.export.lighter import lightened
from sld_edge.export.modules import PixelDecoder, SafetyHead, TextContext
from sld_edge.export.ports import ports_of
from sld_edge.export.samples import latent_samples
from sld_edge.export.variants import with_variants
from sld_edge.export.weights import WeightFile
from sld_edge.export.words import write_words
from sld_edge.manifest import UNCHECKED, Check, CrossAttention, Graph, GraphKind, HarmWords, Shape
from sld_edge.runtime.guidance import Settings, advance
from sld_edge.runtime.safety import SafetyConfig
from sld_edge.runtime.steering import COSINES
from sld_edge.runtime.tokenize import Tokenizer

Arrays = Mapping[str, NDArray[Any]]

#: What the safety head gives and is compared with torch's; its raw mean must only be finite.
_HEAD_OUTPUTS = ("concept_scores", "special_scores", "flags", "raw_mean")
#: Texts the graphs are checked with; every branch sees others.
_SAMPLE_TEXTS = (
    "a photograph of an astronaut riding a horse",
    "two cats on a red sofa",
    "a city at night",
)
_TORCH = f"torch {torch.__version__}"
#: With latents up to this many elements a second check with other R and B costs next to nothing.
_SMALL_LATENTS = 32 * 32


class NetworkExporter:
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
        self.graphs: list[Graph] = []
        self.cross_attention: tuple[CrossAttention, ...] = ()
        self._checkpoint = checkpoint
        self._config = config
        self._shapes = tuple(shapes)
        self._folder = folder
        self._stage = stage
        self._half = config.precision == "fp16"
        self._factor = checkpoint.vae_scale_factor
        torch.manual_seed(0)

    def close(self) -> None:
        """Let go of whatever is still in memory."""
        gc.collect()

    def text_and_unet(self, tokenizer: Tokenizer) -> None:
        """``text`` and ``unet``: the projections of keys and values move from the second to the first."""
        with self._stage("load unet and text encoder"), quiet_torch():
            unet = self._checkpoint.load_unet().eval()
            text_encoder = self._checkpoint.load_text_encoder().eval()
        self.cross_attention = layers_from_unet(unet)
        layers = len(self.cross_attention)
        ids = torch.from_numpy(tokenizer.encode(_SAMPLE_TEXTS, what="prompt").ids)
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
            kinds = latent_samples(self._checkpoint.latent_channels, *self._latent_size(shape))
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
        images = [_pictures(shape) for shape in self._shapes]
        wanted = []
        for shape, pixels in zip(self._shapes, images, strict=True):
            head = SafetyHead(checker, processor, shape.height, shape.width)
            with torch.no_grad():
                outputs = head(torch.from_numpy(pixels)) if self._config.checks else ()
            found = [array.numpy() for array in outputs]
            wanted.append(dict(zip(_HEAD_OUTPUTS, found, strict=False)))
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

    def words(self, tokenizer: Tokenizer) -> HarmWords | None:
        """``words.npz`` beside the graphs' folder, measured in ``text``; None where it tells no harms apart."""
        with self._stage("measure harms' words"):
            text = next(graph for graph in self.graphs if graph.kind == "text")
            harms = self._config.harms_of_concept
            return write_words(self._folder.parent, text, tokenizer, harms)

    def advance(self) -> None:
        """``advance``, traced from the equations and checked against NumPy."""
        with (
            self._stage("export advance"),
            WeightFile(self._folder / "advance.weights") as weights,
        ):
            self._write("advance", advance_graph(), weights, None)
            for branches, batch, rows in ((3, 2, 1), (3, 1, 4), (5, 1, 4)):
                inputs = _advance_sample(branches, batch, rows)
                names = ("next_state", "next_momentum", "next_strength")
                want = advance(np, *inputs.values())
                self._check("advance", inputs, dict(zip(names, want, strict=True)))
        (self._folder / "advance.weights").unlink()

    def _unet_reference(self, unet: Any, hidden: Any, shape: Shape) -> list[Any]:
        """Inputs and the checkpoint's own predictions: as (rows of the texts, inputs, noise_pred)."""
        height, width = self._latent_size(shape)
        unusual = latent_samples(unet.config.in_channels, height, width)[1:]
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

    def _latent_size(self, shape: Shape) -> tuple[int, int]:
        return shape.height // self._factor, shape.width // self._factor

    def _write(self, kind: GraphKind, model: Any, weights: WeightFile, shape: Shape | None) -> None:
        size = f"-{shape.height}x{shape.width}" if shape else ""
        file = self._folder / f"{kind}{size}.onnx"
        weights.move_from(model)
        model.producer_name = "sld-edge"
        model.graph.name = kind
        onnx_ir.save(model, file)
        used = any(
            isinstance(v.const_value, onnx_ir.ExternalTensor)
            for v in model.graph.initializers.values()
        )
        self._pending = Graph(
            kind=kind,
            file=f"graphs/{file.name}",
            weights=(f"graphs/{weights.path.name}",) if used else (),
            inputs=ports_of(kind, model.graph.inputs),
            outputs=ports_of(kind, model.graph.outputs),
            check=None,  # type: ignore[arg-type]  # filled in by the first check
            height=shape.height if shape else 0,
            width=shape.width if shape else 0,
        )

    def _check(self, kind: str, inputs: Arrays, want: Arrays, *, ordinary: bool = True) -> None:
        """Run the graph just written; the worst of its checks goes to the manifest.

        ``ordinary`` inputs must not give a constant.
        """
        import msgspec

        got = run_graph(self._folder / Path(self._pending.file).name, inputs)
        reference = "numpy" if kind == "advance" else _TORCH
        check = check_outputs(
            kind, self._config.precision, got, want, reference=reference, ordinary=ordinary
        )
        if self.graphs and self.graphs[-1].file == self._pending.file:
            before = self.graphs.pop().check
            check = max(check, before, key=lambda one: one.max_abs_error)
        self.graphs.append(msgspec.structs.replace(self._pending, check=check))

    def _add_variants(self, inputs: Arrays, want: Arrays) -> None:
        """Rewrite the graph just written for the engines that want another form; with no inputs unchecked."""
        if not self._config.variants:
            return
        graph = self.graphs.pop()
        with self._stage(f"variants of {graph.kind} {graph.height}x{graph.width}"):
            self.graphs.append(
                with_variants(
                    graph, self._folder, self._config.precision, inputs, want, reference=_TORCH
                )
            )

    def _leave_unchecked(self) -> None:
        """Take the graph just written as it is, and say so in the manifest."""
        import msgspec

        check = Check(
            reference="not compared with torch", max_abs_error=0.0, tolerance=0.0, metric=UNCHECKED
        )
        self.graphs.append(msgspec.structs.replace(self._pending, check=check))


def _half_networks_of(head: SafetyHead) -> None:
    """The vision network in float16; resizing and scores stay in float32."""
    half_from_module(head.vision_model)
    head.visual_projection.half()


def _decode_samples(size: tuple[int, int, int]) -> list[torch.Tensor]:
    """Latents ``[1, C, h, w]`` as denoising ends with, and the extremes that it may end with.

    Small, flat and large ones show what unit Gaussian ones hide: a normalisation whose groups have hardly any spread
    beside their mean, and activations near the end of half precision's range.
    """
    normal = torch.randn(1, *size)
    flat = torch.linspace(-1.0, 1.0, size[0])[None, :, None, None].expand_as(normal)
    return [normal, 0.001 * normal, flat.contiguous(), 3.0 * normal]


def _pictures(shape: Shape) -> NDArray[np.uint8]:
    """Two smooth colourful pictures ``[2, H, W, 3]``."""
    y, x = np.mgrid[0 : shape.height, 0 : shape.width]
    waves = [np.sin(x / (5.0 + c) + b) * np.cos(y / (9.0 - c)) for b in range(2) for c in range(3)]
    pictures = np.stack(waves).reshape(2, 3, shape.height, shape.width).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(np.round(127.5 + 127.5 * pictures), dtype=np.uint8)


def _advance_sample(branches: int, batch: int, rows: int) -> dict[str, NDArray[np.float32]]:
    rng = np.random.default_rng(branches)

    def normal(*shape: int) -> NDArray[np.float32]:
        return rng.standard_normal(shape).astype(np.float32)

    sample = (batch, 4, 8, 8)
    config = SafetyConfig.STRONG
    settings = Settings(
        7.5,
        config.sld_guidance_scale,
        config.sld_threshold,
        config.sld_momentum_scale,
        config.sld_mom_beta,
        1.0,
        float(branches > 3),
        *COSINES,
    )
    return {
        "noise_pred": normal(branches, *sample) * np.float32(0.1),
        "state": normal(rows, *sample),
        "momentum": normal(*sample) * np.float32(0.1),
        "noise": normal(*sample),
        "matrix": normal(rows, rows + 2),
        "settings": np.array(settings, np.float32),
        "strength": rng.random((branches - 2, batch)).astype(np.float32),
    }
