"""``SafePipeline``: a bundle in, safe images out."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sld_edge import __version__
from sld_edge.bundle import Bundle
from sld_edge.engines.base import ComputePrecision, Engine, EngineOptions
from sld_edge.engines.load import load
from sld_edge.errors import BundleError, EngineError
from sld_edge.manifest import GraphKind
from sld_edge.runtime.context import ContextEncoder
from sld_edge.runtime.loop import Floats, Loop
from sld_edge.runtime.noise import randn_for
from sld_edge.runtime.observe import UNOBSERVED, Observer
from sld_edge.runtime.output import Pixels, SafeOutput, images_from_pixels, optional_images
from sld_edge.runtime.progress import step_progress
from sld_edge.runtime.request import Request, request_from_call
from sld_edge.runtime.safety import Guard, SafetyConfig, resolve_guard
from sld_edge.runtime.schedulers import Schedule, build_schedule
from sld_edge.runtime.tokenize import Tokenizer

logger = logging.getLogger("sld_edge")

_MANY_ROWS = 3


class SafePipeline:
    """Text → images under Safe Latent Diffusion, from a bundle that ``sld-export`` made.

    >>> pipe = SafePipeline.from_pretrained("bundle")                          # doctest: +SKIP
    >>> image = pipe("a castle by a lake", safety="strong", seed=1).images[0]  # doctest: +SKIP
    """

    def __init__(
        self, bundle: Bundle, options: EngineOptions, observer: Observer = UNOBSERVED
    ) -> None:
        self.bundle = bundle
        self.options = options
        self._observer = observer
        self._stack = ExitStack()
        self._engines: dict[GraphKind, Engine] = {}
        self._tokenizer = Tokenizer(bundle)
        self._context: ContextEncoder | None = None
        self._progress: bool | None = None

    @classmethod
    def from_pretrained(
        cls,
        bundle: str | os.PathLike[str],
        engine: str | EngineOptions | None = None,
        *,
        compute_precision: ComputePrecision = "fp32",
        threads: int = 0,
        verify: bool = False,
        digest: str | None = None,
        observer: Observer = UNOBSERVED,
    ) -> SafePipeline:
        """Open and check a bundle and load its networks.

        Args:
            bundle: Folder that ``sld-export`` wrote.
            engine: None chooses the best; ``"onnxruntime"``, ``"onnxruntime:cpu"``, or
                :class:`~sld_edge.engines.base.EngineOptions`, which then says everything.
            compute_precision: Lowest precision the denoiser's and decoder's arithmetic may use.
            threads: CPU threads; 0 uses every core.
            verify: Hash every file even where nothing changed since the last successful check.
            digest: Refuse any bundle but the one with this digest.
            observer: Told when stages begin and end, for measurements.

        Raises:
            BundleError: the bundle is missing, damaged, altered or of an unknown version.
            MissingDependency: the engine's package is not installed.
            EngineError: no engine could load the graphs.
        """
        if (Path(bundle) / "model_index.json").is_file():
            raise BundleError(
                "this is a diffusers checkpoint, not a bundle",
                value=str(bundle),
                hint=f"run: sld-export {bundle} BUNDLE",
            )
        options = EngineOptions.parse(engine, compute_precision=compute_precision, threads=threads)
        opened = Bundle.open(bundle, digest=digest)
        opened.verify(full=verify)
        pipeline = cls(opened, options, observer)
        try:
            shape = opened.manifest.shapes[0]
            pipeline._load(shape.height, shape.width)
        except BaseException:
            pipeline.close()
            raise
        logger.info("%s", pipeline)
        return pipeline

    def __call__(
        self,
        prompt: str | Sequence[str],
        height: int | None = None,
        width: int | None = None,
        num_inference_steps: int = 50,
        guidance_scale: float = 7.5,
        negative_prompt: str | Sequence[str] | None = None,
        num_images_per_prompt: int = 1,
        eta: float = 0.0,
        generator: Any = None,
        latents: Any = None,
        output_type: str = "pil",
        return_dict: bool = True,
        callback: Callable[[int, float, Floats], None] | None = None,
        callback_steps: int = 1,
        sld_guidance_scale: float | None = None,
        sld_warmup_steps: int | None = None,
        sld_threshold: float | None = None,
        sld_momentum_scale: float | None = None,
        sld_mom_beta: float | None = None,
        *,
        safety: str | SafetyConfig | None = None,
        safety_concept: str | Sequence[str] | None = None,
        seed: int | Sequence[int] | None = None,
        scheduler: str | None = None,
        timesteps: Sequence[float] | None = None,
        sigmas: Sequence[float] | None = None,
        progress: bool | None = None,
    ) -> Any:
        """Make images. Arguments up to ``sld_mom_beta`` are those of diffusers' Safe pipeline.

        Args:
            prompt: One text or a list of them.
            height, width: Pixels; the bundle's first size when left out. It has graphs for listed sizes only.
            num_inference_steps: Denoising steps, 1 to the number of training steps.
            guidance_scale: s_g, above 0.
            negative_prompt: One text for all prompts or one for each; works together with safety.
            num_images_per_prompt: Images for each prompt, next to each other in the result.
            eta: DDIM's η, 0 to 1; other schedulers ignore it.
            generator: :class:`~sld_edge.Generator`, a seed, a torch generator, or a list with one for each
                image; one for all draws the whole batch at once, as in diffusers.
            latents: Starting noise ``[B, C, h, w]`` of unit variance instead of a drawn one.
            output_type: ``"pil"`` or ``"np"``.
            return_dict: False gives diffusers' tuple.
            callback: Called as ``callback(step, timestep, latents)`` with a copy of the latents.
            callback_steps: Call it at every so many steps.
            sld_guidance_scale, sld_warmup_steps, sld_threshold, sld_momentum_scale, sld_mom_beta: the
                numbers of :class:`~sld_edge.SafetyConfig`; those left out take medium's value.
            safety: ``"off"``, ``"weak"``, ``"medium"``, ``"strong"``, ``"max"`` or a ``SafetyConfig``;
                the bundle's default when neither this nor a ``sld_…`` number is given.
            safety_concept: Text to suppress instead of the bundle's; a list runs one branch for each and
                steers every image away from the one closest to its prompt.
            seed: Seed, or one for each image, of torch's CPU generator.
            scheduler: Name of another scheduler than the checkpoint's (``"dpmpp_2m_karras"``).
            timesteps, sigmas: A custom schedule, for schedulers that take one.
            progress: Show a progress bar; by default only on a terminal.

        Returns:
            :class:`~sld_edge.runtime.output.SafeOutput`, or a tuple.

        Raises:
            InvalidInput: an argument is wrong. Nothing has been made then.
            PolicyError: the bundle's policy forbids it.
            EngineError: an engine failed, or the result is not finite. No image is returned then.
        """
        manifest = self.bundle.manifest
        request = request_from_call(
            manifest,
            prompt=prompt,
            negative_prompt=negative_prompt,
            height=height,
            width=width,
            num_images_per_prompt=num_images_per_prompt,
            guidance_scale=guidance_scale,
            generator=generator,
            seed=seed,
            latents=latents,
            output_type=output_type,
            callback_steps=callback_steps,
        )
        self.bundle.graph("unet", height=request.height, width=request.width)
        schedule = build_schedule(
            scheduler,
            manifest.scheduler,
            steps=num_inference_steps,
            eta=eta,
            timesteps=timesteps,
            sigmas=sigmas,
        )
        guard = resolve_guard(
            safety,
            {
                "sld_guidance_scale": sld_guidance_scale,
                "sld_warmup_steps": sld_warmup_steps,
                "sld_threshold": sld_threshold,
                "sld_momentum_scale": sld_momentum_scale,
                "sld_mom_beta": sld_mom_beta,
            },
            safety_concept,
            bundle=manifest.safety,
            evaluations=schedule.evaluations,
        )
        with self._observer.stage("tokenise"):
            ids, notes = self._token_grid(request, guard)
        self._load(request.height, request.width)
        latents = self._denoise(request, schedule, guard, ids, callback, progress)
        with self._observer.stage("pictures"):
            pixels, flags = self._pictures(latents)
        return self._result(request, schedule, guard, notes, pixels, flags, return_dict)

    @property
    def engines(self) -> dict[str, str]:
        """What runs each graph and why, one line each."""
        return {kind: engine.description for kind, engine in self._engines.items()}

    def set_progress_bar_config(self, *, disable: bool | None = None) -> None:
        """Show the progress bar always (False), never (True) or on a terminal (None)."""
        self._progress = None if disable is None else not disable

    def close(self) -> None:
        """Release every engine; the pipeline loads them again when it is next called."""
        self._engines.clear()
        self._context = None
        self._stack.close()

    def __enter__(self) -> SafePipeline:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        lines = [f"SafePipeline({str(self.bundle.path)!r}, digest={self.bundle.digest[:12]})"]
        lines += [f"  {kind}: {line}" for kind, line in self.engines.items()]
        return "\n".join(lines)

    def _load(self, height: int, width: int) -> None:
        """Acquire the engines for a size; those of another size are let go first, their weights are big."""
        kinds: list[GraphKind] = ["text", "unet", "advance", "decode"]
        if self.bundle.manifest.safety.head:
            kinds.append("safety")
        wanted = {kind: self.bundle.graph(kind, height=height, width=width) for kind in kinds}
        if any(
            kind in self._engines and self._engines[kind].graph != graph
            for kind, graph in wanted.items()
        ):
            self.close()
        for kind, graph in wanted.items():
            if kind not in self._engines:
                engine = self._observer.engine(load(self.bundle, graph, self.options))
                self._engines[kind] = self._stack.enter_context(engine)
        if self._context is None:
            self._context = ContextEncoder(self._engines["text"])

    def _token_grid(
        self, request: Request, guard: Guard
    ) -> tuple[NDArray[np.int64], tuple[str, ...]]:
        """Token ids ``[R, B, T]`` of every branch, and a note for each text that was cut."""
        prompts = self._tokenizer.encode(request.prompts, what="prompt")
        negatives = self._tokenizer.encode(request.negative_prompts, what="negative_prompt")
        rows = [negatives.ids, prompts.ids]
        for text in guard.concepts:
            ids = self._tokenizer.encode_concept(text)
            rows.append(np.broadcast_to(ids, prompts.ids.shape))
        notes = list(guard.notes)
        for what, batch in (("prompt", prompts), ("negative prompt", negatives)):
            notes += [
                f"{what} {index} was too long, its last {count} tokens were cut"
                for index, count in enumerate(batch.truncated)
                if count
            ]
        for note in notes:
            logger.warning("%s", note)
        return np.stack(rows), tuple(notes)

    def _denoise(
        self,
        request: Request,
        schedule: Schedule,
        guard: Guard,
        ids: NDArray[np.int64],
        callback: Callable[[int, float, Floats], None] | None,
        progress: bool | None,
    ) -> Floats:
        assert self._context is not None
        noise = request.latents
        if noise is None:
            with self._observer.stage("noise"):
                noise = randn_for(request.latent_shape, request.generators)
        with self._observer.stage("text"):
            context = self._context.encode(ids)
        loop = Loop(
            unet=self._engines["unet"],
            advance=self._advance_for(branches=len(ids)),
            schedule=schedule,
            config=guard.config,
            guidance_scale=request.guidance_scale,
            context=context,
            latent_shape=request.latent_shape,
        )
        latents = noise
        show = self._progress if progress is None else progress
        with (
            self._observer.stage("denoise"),
            step_progress(schedule.evaluations, show) as step_done,
        ):
            for index, timestep, latents in loop.run(
                noise, lambda: randn_for(request.latent_shape, request.generators)
            ):
                step_done()
                if callback is not None and index % request.callback_steps == 0:
                    callback(index, timestep, latents.copy())
        return latents

    def _advance_for(self, *, branches: int) -> Engine:
        if branches <= _MANY_ROWS:
            return self._engines["advance"]
        if "advance_many" not in self._engines:
            graph = self.bundle.graph("advance_many")
            engine = self._observer.engine(load(self.bundle, graph, self.options))
            self._engines["advance_many"] = self._stack.enter_context(engine)
        return self._engines["advance_many"]

    def _pictures(self, latents: Floats) -> tuple[list[Pixels], list[bool] | None]:
        """Decode and check, one image at a time: the decoder's memory is the largest of all."""
        pixels: list[Pixels] = []
        flags: list[bool] = []
        for latent in latents:
            image = self._engines["decode"].run({"latents": np.ascontiguousarray(latent[None])})
            pixels.append(image["images"][0])
            if "safety" in self._engines:
                verdict = self._engines["safety"].run(image)
                if not np.isfinite(verdict["concept_scores"]).all():
                    raise EngineError(
                        "the safety head's scores are not finite, no image is returned"
                    )
                flags.append(bool(verdict["flags"][0]))
        return pixels, flags if "safety" in self._engines else None

    def _result(
        self,
        request: Request,
        schedule: Schedule,
        guard: Guard,
        notes: tuple[str, ...],
        pixels: list[Pixels],
        flags: list[bool] | None,
        return_dict: bool,
    ) -> Any:
        verdicts = flags or [False] * len(pixels)
        shown = [
            np.zeros_like(array) if bad else array
            for array, bad in zip(pixels, verdicts, strict=True)
        ]
        unsafe = None
        if flags is not None and self.bundle.manifest.safety.policy.unsafe_images == "return":
            originals = [
                array if bad else None for array, bad in zip(pixels, verdicts, strict=True)
            ]
            unsafe = optional_images(originals, request.output_type)
        concepts = list(guard.concepts)
        output = SafeOutput(
            images=images_from_pixels(shown, request.output_type),
            nsfw_content_detected=flags,
            unsafe_images=unsafe,
            applied_safety_concept=(concepts[0] if len(concepts) == 1 else concepts) or None,
            record={
                **self._run_record(request, schedule, guard, notes),
                "images": _image_records(request, flags, verdicts),
            },
        )
        return output if return_dict else output.to_tuple()

    def _run_record(
        self, request: Request, schedule: Schedule, guard: Guard, notes: tuple[str, ...]
    ) -> dict[str, Any]:
        manifest = self.bundle.manifest
        return {
            "sld_edge": __version__,
            "width": request.width,
            "height": request.height,
            "steps": schedule.steps,
            "scheduler": schedule.name,
            "scheduler_config": schedule.config,
            "guidance_scale": request.guidance_scale,
            "seed_device": request.seed_device,
            "batch_size": request.batch,
            "latents_given": request.latents is not None,
            "safety": guard.record(),
            "safety_head": manifest.safety.head,
            "notes": list(notes),
            "bundle": {"digest": self.bundle.digest, "name": manifest.source.name},
            "engine": self.engines,
        }


def _image_records(
    request: Request, flags: list[bool] | None, verdicts: list[bool]
) -> list[dict[str, Any]]:
    seeds = request.seeds
    return [
        {
            "image_index": index,
            "prompt": request.prompts[index],
            "negative_prompt": request.negative_prompts[index],
            "seed": None if seeds is None else seeds[index if len(seeds) > 1 else 0],
            "nsfw_detected": None if flags is None else flags[index],
            "withheld": bad,
        }
        for index, bad in enumerate(verdicts)
    ]
