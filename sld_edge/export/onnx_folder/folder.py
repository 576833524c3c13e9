"""A folder of ONNX models in Optimum's layout or in diffusers' older one, checked before anything is written.

What stands in no graph is read from the configurations beside them; where there are none (the older layout has none)
Stable Diffusion's own values are taken, and said.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from sld_edge.bundle import sha256_of
from sld_edge.errors import InvalidInput, UnsupportedCheckpoint
from sld_edge.export.bundle_writer import PredictionType
from sld_edge.export.checkpoint import (
    class_of,
    licence_of,
    name_of,
    prediction_of,
    read_json,
    scheduler_of,
)
from sld_edge.export.image_processor import image_processor_from
from sld_edge.export.onnx_folder.graphs import (
    DECODER,
    TEXT_ENCODER,
    UNET,
    factor_of,
    input_sizes,
    is_half,
    keep_output,
    one_of,
    sizes_of,
    width_of,
)
from sld_edge.export.onnx_folder.load import load_model, weights_of
from sld_edge.export.onnx_folder.roles import IDS, LATENTS, TEXT, check_inputs, denoiser_roles
from sld_edge.manifest import Shape
from sld_edge.passes.raise_opset import OPSET
from sld_edge.runtime.schedulers import configured_for

NETWORKS: Final = (UNET, TEXT_ENCODER, DECODER)
_FILE: Final = "model.onnx"
#: Parts of other pipelines, that would be left out without a word.
_OTHER_PARTS: Final = (
    "text_encoder_2",
    "text_encoder_3",
    "tokenizer_2",
    "transformer",
    "controlnet",
    "image_encoder",
)
#: What Stable Diffusion has where nothing is written down.
_SCALING, _SIDE, _TOKENS, _CHANNELS = 0.18215, 64, 77, 4


@dataclass(frozen=True, kw_only=True)
class OnnxFolder:
    """A checked folder; models are read anew for each use, their weights stay in the files."""

    path: Path
    name: str
    class_name: str
    licence: str
    family: str
    configs: Mapping[str, Mapping[str, Any]]
    scheduler_config: Mapping[str, Any]
    prediction_type: PredictionType
    roles: Mapping[str, str]
    #: Numbers that the inputs of the three networks were exported for; None where they are free.
    fixed_size: tuple[int | None, int | None]
    latent_channels: int
    vae_scale_factor: int
    scaling_factor: float
    #: Length of a text's vectors, and how many tokens a text has.
    width: int
    half: bool
    #: Operator set that its graphs are raised to: the newest of them, and at least that which the passes write.
    opset: int
    #: Where the safety checker comes from: a folder with ``model.onnx`` or with weights; None where there is none.
    checker: Path | None
    feature_extractor_config: Mapping[str, Any]
    notes: tuple[str, ...]

    @property
    def sample_size(self) -> tuple[int, int]:
        """Height and width of the latents where a call does not say."""
        size = self.configs[UNET].get("sample_size") or _SIDE
        sides = (size, size) if isinstance(size, int) else (size[0], size[1])
        return tuple(fixed or side for fixed, side in zip(self.fixed_size, sides, strict=True))  # type: ignore[return-value]

    @property
    def text_positions(self) -> int:
        """Longest text that the text encoder has positions for, in tokens."""
        return int(self.configs[TEXT_ENCODER].get("max_position_embeddings", _TOKENS))

    @cached_property
    def weight_digests(self) -> Mapping[str, str]:
        """sha256 of every file that was read, keyed by its path in the folder."""
        files = {
            file.relative_to(self.path).as_posix(): file
            for name in NETWORKS
            for file in self._files(name)
        }
        if self.checker is not None:
            own = [self.checker / name for name in (_FILE, "model.safetensors")]
            files |= {f"safety_checker/{file.name}": file for file in own if file.is_file()}
        return {name: sha256_of(file) for name, file in files.items()}

    def model(self, network: str) -> Any:
        """One network as an ``onnx_ir`` model with the one output that is used."""
        model = load_model(self.file(network))
        keep_output(network, model)
        return model

    def file(self, network: str) -> Path:
        """The file of a network."""
        return self.path / network / _FILE

    def _files(self, network: str) -> list[Path]:
        file = self.file(network)
        return [file, *weights_of(file, load_model(file))]

    def check_sizes(self, shapes: Iterable[Shape]) -> None:
        """Refuse sizes that the networks were not exported for, or that the safety checker would not take.

        Raises:
            InvalidInput: the folder was exported for another size.
        """
        for shape in shapes:
            for side, fixed in zip((shape.height, shape.width), self.fixed_size, strict=True):
                if fixed is not None and side != fixed * self.vae_scale_factor:
                    only = "x".join(
                        str((one or 0) * self.vae_scale_factor) for one in self.fixed_size
                    )
                    raise InvalidInput(
                        f"the folder was exported for pictures of {only} only",
                        value=f"{shape.height}x{shape.width}",
                        hint="leave out --shape, or export with free sizes",
                    )
            if self.checker is not None:
                processor = image_processor_from(self.feature_extractor_config)
                config = (
                    read_json(self.checker / "config.json")
                    if (self.checker / "config.json").is_file()
                    else {}
                )
                side = (config.get("vision_config") or {}).get("image_size", 224)
                processor.check_fits(side, shape.height, shape.width)

    def check_length(self, tokens: int) -> None:
        """Refuse networks that were exported for texts of another length than the tokenizer makes.

        Raises:
            UnsupportedCheckpoint: naming the network.
        """
        for network, name, place in ((TEXT_ENCODER, IDS, 1), (UNET, TEXT, 1)):
            value = next(one for one in self.model(network).graph.inputs if one.name == name)
            size = (
                value.shape[place] if value.shape is not None and len(value.shape) > place else None
            )
            if isinstance(size, int) and size != tokens:
                raise UnsupportedCheckpoint(
                    f"the {network} was exported for texts of {size} tokens, the tokenizer makes {tokens}",
                    hint=f"export with free sizes, or with --sequence_length {tokens}",
                )


def open_onnx_folder(
    path: Path,
    *,
    need_safety_head: bool = True,
    scheduler: str = "",
    safety_checker: Path | None = None,
) -> OnnxFolder:
    """Check a folder of ONNX models.

    Args:
        path: The folder.
        need_safety_head: Whether a folder without a safety checker is refused.
        scheduler: Name of another scheduler than the folder's.
        safety_checker: A folder with a safety checker, for those that have none.

    Raises:
        InvalidInput: a file is missing or damaged.
        UnsupportedCheckpoint: it is one that cannot be imported faithfully.
    """
    index = read_json(path / "model_index.json")
    _check_parts(path, index)
    models = {name: load_model(path / name / _FILE) for name in NETWORKS}
    roles = denoiser_roles(one.name for one in models[UNET].graph.inputs)
    for name in (TEXT_ENCODER, DECODER):
        check_inputs(name, (one.name for one in models[name].graph.inputs))
    for name, model in models.items():
        keep_output(name, model)
    notes: list[str] = []
    configs = {name: _config(path / name) for name in NETWORKS}
    vae = configs[DECODER]
    if not vae:
        notes.append(
            f"the folder has no vae_decoder/config.json: latents are scaled by {_SCALING}, as Stable Diffusion's"
        )
    if vae.get("latents_mean") is not None or vae.get("latents_std") is not None:
        raise UnsupportedCheckpoint("the VAE normalises its latents, which is not supported")
    sample = input_sizes(models[UNET], LATENTS, 4)
    channels = sample[1] or int(configs[UNET].get("in_channels", _CHANNELS))
    given = sizes_of(models[UNET].graph.outputs[0], 4)[1] or int(
        configs[UNET].get("out_channels", channels)
    )
    if channels != given:
        raise UnsupportedCheckpoint(
            "the UNet takes more channels than it gives, as for inpainting", value=(channels, given)
        )
    latent = input_sizes(models[DECODER], "latent_sample", 4)
    if latent[1] not in (None, channels):
        raise UnsupportedCheckpoint(
            "the VAE and the UNet have different latent channels", value=(latent[1], channels)
        )
    own = scheduler_of(path, index)
    if scheduler:
        own = configured_for(scheduler, own)
    checker = _checker(path, index, safety_checker) if need_safety_head else None
    processor_folder = checker.parent if checker is not None and safety_checker else path
    processor: Mapping[str, Any] = {}
    if checker is not None:
        file = processor_folder / "feature_extractor" / "preprocessor_config.json"
        beside = checker / "preprocessor_config.json"
        if not file.is_file() and not beside.is_file():
            file = path / "feature_extractor" / "preprocessor_config.json"
        processor = read_json(beside if beside.is_file() else file)
    width = width_of(models[UNET], configs[UNET])
    return OnnxFolder(
        path=path,
        name=name_of(path),
        class_name=str(index.get("_class_name")),
        licence=licence_of(path),
        family="sd2" if width > 768 else "sd1",
        configs=configs,
        scheduler_config=own,
        prediction_type=prediction_of(own),
        roles=roles,
        fixed_size=(one_of(sample[2], latent[2]), one_of(sample[3], latent[3])),
        latent_channels=channels,
        vae_scale_factor=factor_of(path, vae, models[DECODER]),
        scaling_factor=float(vae.get("scaling_factor") or _SCALING),
        width=width,
        half=is_half(models),
        opset=max(OPSET, *(model.opset_imports[""] for model in models.values())),
        checker=checker,
        feature_extractor_config=processor,
        notes=tuple(notes),
    )


def _check_parts(path: Path, index: Mapping[str, Any]) -> None:
    """Refuse half a folder, parts that would be left out, and two files for one network."""
    for part in _OTHER_PARTS:
        there = next((path / part).glob("*.onnx"), None) is not None
        if there or class_of(index, part) is not None:
            raise UnsupportedCheckpoint(
                f"the folder has a {part}, which the runtime cannot use", value=class_of(index, part),
                hint="Stable Diffusion 1 and 2 can be imported",
            )  # fmt: skip
    missing = [f"{name}/{_FILE}" for name in NETWORKS if not (path / name / _FILE).is_file()]
    if missing:
        raise InvalidInput(
            f"the ONNX folder is not whole, there is no {' and no '.join(missing)}", value=str(path)
        )
    for name in NETWORKS:
        others = sorted(file.name for file in (path / name).glob("*.onnx") if file.name != _FILE)
        if others:
            raise InvalidInput(
                f"{name}/ has several models", value=[_FILE, *others],
                hint=f"leave {_FILE} alone in it, with its weights",
            )  # fmt: skip


def _config(folder: Path) -> dict[str, Any]:
    file = folder / "config.json"
    return read_json(file) if file.is_file() else {}


def _checker(path: Path, index: Mapping[str, Any], given: Path | None) -> Path:
    """The folder of the safety checker.

    Raises:
        UnsupportedCheckpoint: there is none.
    """
    folder = given if given is not None else path / "safety_checker"
    if given is not None and (given / "safety_checker").is_dir():
        folder = given / "safety_checker"
    if (folder / _FILE).is_file() or (folder / "model.safetensors").is_file():
        return folder
    if given is not None:
        raise InvalidInput(
            "no safety checker here, there is no model.safetensors and no model.onnx", value=str(given),
            hint="name the safety_checker folder of a Stable Diffusion checkpoint",
        )  # fmt: skip
    raise UnsupportedCheckpoint(
        "the folder has no safety_checker, so no picture could be withheld",
        hint="name one with --safety-checker FOLDER, or pass --without-safety-head to go on without",
    )
