"""A diffusers folder, checked: what cannot be exported faithfully is refused by name before anything is loaded."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from sld_edge.bundle import sha256_of
from sld_edge.errors import InvalidInput, UnsupportedCheckpoint
from sld_edge.export.bundle_writer import PredictionType
from sld_edge.export.image_processor import image_processor_from
from sld_edge.export.recognise import check_is_checkpoint, lying_beside
from sld_edge.export.supported import check_text, check_unet, check_vae
from sld_edge.manifest import Shape
from sld_edge.offline import import_diffusers
from sld_edge.runtime.schedulers import configured_for

#: Pipelines over the same networks. Inpainting has a UNet of its own too, which is refused by its channels.
_PIPELINES = (
    "StableDiffusionPipeline",
    "StableDiffusionPipelineSafe",
    "StableDiffusionImg2ImgPipeline",
    "StableDiffusionInpaintPipeline",
    "StableDiffusionInpaintPipelineLegacy",
)
_WITHOUT_HEAD = "restore it, or pass --without-safety-head to go on without"
_WEIGHT_STEMS = {"unet": "diffusion_pytorch_model", "vae": "diffusion_pytorch_model"}
_CLASSES = {
    "unet": ("UNet2DConditionModel",),
    "vae": ("AutoencoderKL",),
    "text_encoder": ("CLIPTextModel",),
    "tokenizer": ("CLIPTokenizer", "CLIPTokenizerFast"),
}
#: Parts that other pipelines have, and that would be left out without a word.
_UNKNOWN_PARTS = ("text_encoder_2", "tokenizer_2", "image_encoder", "prior", "controlnet")


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A checked checkpoint; networks are loaded one at a time, in float32."""

    path: Path
    name: str
    class_name: str
    licence: str
    family: str
    unet_config: Mapping[str, Any]
    vae_config: Mapping[str, Any]
    text_config: Mapping[str, Any]
    #: Empty where no safety checker is asked for.
    checker_config: Mapping[str, Any]
    scheduler_config: Mapping[str, Any]
    feature_extractor_config: Mapping[str, Any]
    prediction_type: PredictionType
    weight_files: tuple[Path, ...]
    #: What the user should know of it, one line each.
    notes: tuple[str, ...]
    #: Components whose weights exist as ``….fp16.safetensors`` only.
    variants: Mapping[str, str | None]

    @cached_property
    def weight_digests(self) -> Mapping[str, str]:
        """sha256 of every weight file, keyed by its path in the checkpoint; they are read for it."""
        return {
            file.relative_to(self.path).as_posix(): sha256_of(file) for file in self.weight_files
        }

    @property
    def latent_channels(self) -> int:
        """Channels of the latents."""
        return int(self.unet_config.get("in_channels", 4))

    @property
    def sample_size(self) -> tuple[int, int]:
        """Height and width of the latents that diffusers makes where a call does not say."""
        size = self.unet_config.get("sample_size") or 64
        if not isinstance(size, int):
            return size[0], size[1]
        # Old files say 32 where the network was trained on 64, and diffusers knows.
        old = re.match(r"0\.[0-8]\.", str(self.unet_config.get("_diffusers_version", "")))
        return (max(size, 64),) * 2 if old else (size, size)

    @property
    def vocabulary(self) -> int:
        """Number of tokens that the text encoder has an embedding for."""
        return int(self.text_config.get("vocab_size", 49408))

    @property
    def text_positions(self) -> int:
        """Longest text that the text encoder has positions for, in tokens."""
        return int(self.text_config.get("max_position_embeddings", 77))

    def check_sizes(self, shapes: Iterable[Shape]) -> None:
        """Refuse sizes of pictures that the safety checker would not take, before a network is loaded.

        Raises:
            UnsupportedCheckpoint: its image processor does not fit its network.
        """
        if not self.checker_config:
            return
        processor = image_processor_from(self.feature_extractor_config)
        side = (self.checker_config.get("vision_config") or {}).get("image_size", 224)
        for shape in shapes:
            processor.check_fits(side, shape.height, shape.width)

    @property
    def vae_scale_factor(self) -> int:
        """Pixels for one latent element, on a side."""
        return int(2 ** (len(self.vae_config.get("block_out_channels", (64,))) - 1))

    def load_unet(self) -> Any:
        """diffusers' ``UNet2DConditionModel``."""
        return self._loaded("unet", import_diffusers().UNet2DConditionModel.from_pretrained)

    def load_vae(self) -> Any:
        """diffusers' ``AutoencoderKL``."""
        return self._loaded("vae", import_diffusers().AutoencoderKL.from_pretrained)

    def load_text_encoder(self) -> Any:
        """transformers' ``CLIPTextModel``."""
        from transformers import CLIPTextModel

        return self._loaded("text_encoder", CLIPTextModel.from_pretrained)

    def load_safety_checker(self) -> Any:
        """diffusers' ``StableDiffusionSafetyChecker``."""
        from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker

        return self._loaded("safety_checker", StableDiffusionSafetyChecker.from_pretrained)

    def load_tokenizer(self) -> Any:
        """transformers' CLIP tokenizer."""
        from transformers import CLIPTokenizer

        with quietly("tokenizer"):
            return CLIPTokenizer.from_pretrained(self.path / "tokenizer", local_files_only=True)

    def _loaded(self, component: str, load: Callable[..., Any]) -> Any:
        import torch

        extra = {"low_cpu_mem_usage": False} if component in _WEIGHT_STEMS else {}
        with quietly(component):
            network, found = load(
                self.path / component,
                variant=self.variants[component],
                local_files_only=True,
                use_safetensors=True,
                output_loading_info=True,
                **{"torch_dtype" if component in _WEIGHT_STEMS else "dtype": torch.float32},
                **extra,
            )
        # Both libraries fill a missing weight with random numbers and go on.
        missing = sorted(found["missing_keys"])
        if missing:
            raise InvalidInput(
                f"the checkpoint's {component} lacks {len(missing)} weights, the first is",
                value=missing[0],
                hint="the file is incomplete; restore it",
            )
        for name, weight in network.named_parameters():
            if not torch.isfinite(weight).all():
                raise InvalidInput(
                    f"the checkpoint's {component} has a weight that is not finite",
                    value=name,
                    hint="the checkpoint itself is broken",
                )
        return network


def open_checkpoint(
    path: Path, *, need_safety_head: bool = True, scheduler: str = ""
) -> Checkpoint:
    """Check a diffusers folder.

    Args:
        path: The folder.
        need_safety_head: Whether a checkpoint without a safety checker is refused.
        scheduler: Name of another scheduler than the checkpoint's, for the bundle to have as its own.

    Raises:
        InvalidInput: there is no checkpoint at ``path``, or a file of it is missing or damaged.
        UnsupportedCheckpoint: it is one that cannot be exported faithfully.
    """
    check_is_checkpoint(path)
    index = read_json(path / "model_index.json")
    class_name = str(index.get("_class_name"))
    if class_name not in _PIPELINES:
        raise UnsupportedCheckpoint(
            "the checkpoint's pipeline is not Stable Diffusion 1.x or 2.x", value=class_name
        )
    for component, classes in _CLASSES.items():
        found = class_of(index, component)
        if found not in classes:
            raise UnsupportedCheckpoint(
                f"the checkpoint's {component} is of an unknown kind", value=found
            )
    for component in _UNKNOWN_PARTS:
        if class_of(index, component) is not None:
            raise UnsupportedCheckpoint(
                f"the checkpoint has a {component}, which is not supported",
                value=class_of(index, component),
            )
    if need_safety_head:
        checker = class_of(index, "safety_checker")
        if checker is None:
            raise UnsupportedCheckpoint(
                "the checkpoint has no safety_checker, so no picture could be withheld",
                hint="add one, or pass --without-safety-head to go on without",
            )
        if checker != "StableDiffusionSafetyChecker":
            raise UnsupportedCheckpoint(
                "the checkpoint's safety_checker is of an unknown kind",
                value=checker,
                hint="pass --without-safety-head to go on without",
            )
    configs = {
        name: read_json(path / name / "config.json") for name in ("unet", "vae", "text_encoder")
    }
    check_unet(configs["unet"])
    check_text(configs["text_encoder"])
    check_vae(configs["vae"], configs["unet"])
    own = scheduler_of(path, index)
    if scheduler:
        own = configured_for(scheduler, own)
    prediction = prediction_of(own)
    components = ["unet", "vae", "text_encoder"]
    processor: dict[str, Any] = {}
    checker_config: dict[str, Any] = {}
    if need_safety_head:
        components.append("safety_checker")
        checker_config = read_json(path / "safety_checker" / "config.json", hint=_WITHOUT_HEAD)
        processor = read_json(
            path / "feature_extractor" / "preprocessor_config.json", hint=_WITHOUT_HEAD
        )
    files = {
        name: _weights(
            path / name,
            _WEIGHT_STEMS.get(name, "model"),
            hint=_WITHOUT_HEAD if name == "safety_checker" else "",
        )
        for name in components
    }
    return Checkpoint(
        path=path,
        name=name_of(path),
        class_name=class_name,
        licence=licence_of(path),
        family="sd2" if configs["text_encoder"].get("hidden_size", 768) > 768 else "sd1",
        unet_config=configs["unet"],
        vae_config=configs["vae"],
        text_config=configs["text_encoder"],
        checker_config=checker_config,
        scheduler_config=own,
        feature_extractor_config=processor,
        prediction_type=prediction,
        weight_files=tuple(file for found, _ in files.values() for file in found),
        notes=tuple(lying_beside(path)),
        variants={name: variant for name, (_, variant) in files.items()},
    )


def prediction_of(scheduler: Mapping[str, Any]) -> PredictionType:
    """What the network predicts, which the scheduler's configuration says."""
    prediction: PredictionType = scheduler.get("prediction_type", "epsilon")
    if prediction not in ("epsilon", "v_prediction", "sample"):
        raise UnsupportedCheckpoint("unknown prediction_type", value=prediction)
    return prediction


def name_of(path: Path) -> str:
    """The folder's name; a snapshot of a hub's cache, which is named after a commit, has its repository's."""
    folder = path.resolve()
    repository = folder.parent.parent.name
    if folder.parent.name == "snapshots" and repository.startswith("models--"):
        return repository.removeprefix("models--").replace("--", "/")
    return folder.name


def class_of(index: Mapping[str, Any], component: str) -> object:
    """Class that ``model_index.json`` names for a component; None where it has none."""
    entry = index.get(component)
    return entry[1] if isinstance(entry, list) and len(entry) == 2 else entry


def scheduler_of(path: Path, index: Mapping[str, Any]) -> dict[str, Any]:
    """The scheduler's configuration under the class that ``model_index.json`` names, as diffusers reads it.

    The file may have been written by another class, or by the Flax one of the same name.
    """
    config = read_json(path / "scheduler" / "scheduler_config.json")
    named = class_of(index, "scheduler")
    for name in (named, config.get("_class_name")):
        if isinstance(name, str):
            return {**config, "_class_name": name.removeprefix("Flax")}
    return config


def _weights(folder: Path, stem: str, *, hint: str = "") -> tuple[list[Path], str | None]:
    """Weight files of a component and the variant they are stored as; their headers are read."""
    for variant in (None, "fp16"):
        infix = f".{variant}" if variant else ""
        files = [folder / f"{stem}{infix}.safetensors"]
        shards = folder / f"{stem}.safetensors.index{infix}.json"
        sharded = not files[0].is_file() and shards.is_file()
        if sharded:
            named = read_json(shards).get("weight_map")
            if not isinstance(named, dict) or not named:
                raise InvalidInput("an index of weight files names none", value=_tail(shards))
            files = sorted({folder / Path(str(name)).name for name in named.values()})
        if sharded or files[0].is_file():
            for file in files:
                _check_safetensors(file)
            return files, variant
    if any(folder.glob("*.bin")):
        raise UnsupportedCheckpoint(
            f"the weights in {folder} are pickles (.bin), which can run code when loaded",
            hint="convert them to safetensors",
        )
    raise InvalidInput(
        "a weight file is missing", value=_tail(folder / f"{stem}.safetensors"), hint=hint
    )


def _check_safetensors(file: Path) -> None:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="pt") as weights:
            weights.keys()
    except (SafetensorError, OSError) as error:
        raise InvalidInput(
            f"a weight file is damaged or missing ({_reason(error, file)})",
            value=_tail(file),
            hint="restore it",
        ) from None


def _tail(file: Path) -> str:
    """Component and file name: what tells one file from another must not be cut out of a long path."""
    return "/".join(file.parts[-2:])


def _reason(error: Exception, file: Path) -> str:
    return str(error).replace(str(file), file.name)


def read_json(file: Path, *, hint: str = "") -> dict[str, Any]:
    """A JSON object from a file of a checkpoint.

    Raises:
        InvalidInput: there is none.
    """
    try:
        data = json.loads(file.read_text("utf-8"))
    except FileNotFoundError:
        raise InvalidInput(
            "a file of the checkpoint is missing", value=_tail(file), hint=hint
        ) from None
    except OSError as error:
        raise InvalidInput(f"cannot read {file} ({error.strerror})") from None
    except ValueError:
        raise InvalidInput("a file of the checkpoint is not JSON", value=_tail(file)) from None
    if not isinstance(data, dict):
        raise InvalidInput("a file of the checkpoint is not a JSON object", value=_tail(file))
    return data


def licence_of(path: Path) -> str:
    """``license:`` of the model card's front matter, or "unknown"."""
    for name in ("README.md", "MODEL_CARD.md"):
        file = path / name
        if file.is_file():
            match = re.search(
                r"^licen[cs]e:\s*(\S.*)$", file.read_text("utf-8", "replace"), re.MULTILINE
            )
            if match:
                return match.group(1).strip()
    return "unknown"


@contextlib.contextmanager
def quietly(component: str) -> Iterator[None]:
    """Load without progress bars and remarks; what goes wrong becomes one line."""
    import warnings

    import transformers

    diffusers = import_diffusers()

    levels = diffusers.utils.logging.get_verbosity(), transformers.utils.logging.get_verbosity()
    diffusers.utils.logging.set_verbosity_error()
    transformers.utils.logging.set_verbosity_error()
    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (  # what the libraries raise for a configuration they do not expect
        OSError, ValueError, RuntimeError, LookupError, TypeError, AttributeError, ArithmeticError, AssertionError,
    ) as error:  # fmt: skip
        raise InvalidInput(
            f"the checkpoint's {component} cannot be loaded ({type(error).__name__}: {str(error)[:300]})"
        ) from None
    finally:
        diffusers.utils.logging.set_verbosity(levels[0])
        transformers.utils.logging.set_verbosity(levels[1])
