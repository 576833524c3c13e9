"""``SafePipeline``: a bundle in, safe images out."""

from __future__ import annotations

import logging
import os
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from inspect import signature
from types import TracebackType
from typing import Any, NoReturn

from sld_edge.bundle import Bundle
from sld_edge.engines.base import ComputePrecision, Engine, EngineOptions
from sld_edge.engines.info import EngineInfo
from sld_edge.engines.load import check_names
from sld_edge.engines.tensorrt.library import LIBRARIES
from sld_edge.errors import InvalidInput
from sld_edge.manifest import HarmWords
from sld_edge.plain import called, check_keywords, truth
from sld_edge.runtime.arguments import ARGUMENTS, CallArguments
from sld_edge.runtime.call import Call
from sld_edge.runtime.context import ContextEncoder
from sld_edge.runtime.denoise import Denoiser
from sld_edge.runtime.diffusers_names import (
    check_foreign,
    check_opening,
    step_callback,
    step_tensors,
)
from sld_edge.runtime.memories.space import Floats
from sld_edge.runtime.memory_plan import MemoryMode, MemoryPlan, checked_memory, plan_memory
from sld_edge.runtime.networks import Networks
from sld_edge.runtime.notes import Notes
from sld_edge.runtime.observe import UNOBSERVED, Observer
from sld_edge.runtime.origin import Origin, drawn_noise, origins_of
from sld_edge.runtime.output import SafeOutput, output_from_pixels
from sld_edge.runtime.pictures import pictures_from_latents
from sld_edge.runtime.preparing import CallPreparer
from sld_edge.runtime.progress import step_progress
from sld_edge.runtime.safety import SafetyConfig
from sld_edge.runtime.screening import screened
from sld_edge.runtime.turns import Turns, in_turn
from sld_edge.runtime.words import WordScreen

logger = logging.getLogger("sld_edge")


class SafePipeline(CallPreparer):
    """Text → images under Safe Latent Diffusion, from a bundle that ``sld-export`` made.

    Open one with :meth:`from_pretrained`, which checks the bundle's files; building one from ``bundle``, ``options``,
    ``observer`` and ``memory`` reads no file and loads nothing.

    Threads may share one: calls run one after the other in the order in which they came, :meth:`close` and
    :meth:`load` wait for their turn too, and everything else may be used meanwhile (docs/threads.md).

    >>> from sld_edge import SafePipeline
    >>> pipe = SafePipeline.from_pretrained("bundle")
    >>> out = pipe("a castle by a lake", safety="strong", seed=1, num_inference_steps=20)
    >>> out.record["safety"]["preset"], len(out.images)
    ('strong', 1)
    >>> out.images[0].save("castle.png")
    """

    def __init__(
        self,
        bundle: Bundle,
        options: EngineOptions,
        observer: Observer = UNOBSERVED,
        *,
        memory: MemoryMode = "normal",
    ) -> None:
        super().__init__(bundle, options, observer)
        self._denoiser = Denoiser()
        self._networks = Networks(
            bundle, options, observer, memory=memory, before_release=self._denoiser.close
        )
        self._context = self._new_context()
        known = isinstance(bundle.manifest.safety.words, HarmWords)
        self._screen = WordScreen(bundle, self._tokenizer) if known else None
        self._progress: bool | None = None
        self._turns = Turns()
        self._notes = Notes()
        # Device memory is not freed with the objects that hold its address: release it even without close().
        weakref.finalize(self, _release_if_idle, self._turns, self._networks)

    @classmethod
    def from_pretrained(
        cls,
        bundle: str | os.PathLike[str],
        engine: str | EngineOptions | None = None,
        *,
        compute_precision: ComputePrecision = "fp32",
        threads: int = 0,
        memory: str = "normal",
        verify: bool = False,
        digest: str | None = None,
        key: object = None,
        cache: str | os.PathLike[str] | None = None,
        lazy: bool = False,
        observer: Observer = UNOBSERVED,
        **others: Any,
    ) -> SafePipeline:
        """Open and check a bundle and load its networks.

        Args:
            bundle: Folder that ``sld-export`` wrote.
            engine: None chooses the best; ``"onnxruntime"``, ``"onnxruntime:cpu"``,
                ``"tensorrt"``, or :class:`~sld_edge.engines.base.EngineOptions`, which then says everything.
            compute_precision: Lowest precision the denoiser's and decoder's arithmetic may use. One that was not
                shown to be as safe as fp32 in this bundle is noted at every call, and refused under a policy.
            threads: CPU threads; 0 uses every core.
            memory: ``"low"`` loads one stage after the other and releases it again, so that the largest
                decides what is needed; every call then loads anew. Pictures are the same.
            verify: Hash every file even where nothing changed since the last successful check.
            digest: Refuse any bundle but the one with this digest (64 hexadecimal digits).
            key: Refuse any bundle that this Ed25519 key has not signed: a public key's file, or the key as text.
                With a digest or a key every byte is hashed at every opening, files that change later are refused, and
                compiled engines in the bundle's own cache folder are not used.
            cache: Folder for compiled engines instead of the bundle's own.
            lazy: Leave loading the networks to the first call, so that :meth:`check` can come before.
            observer: Told when stages begin and end, for measurements.
            others: Further arguments of diffusers' ``from_pretrained``; any that asks for something is refused by name.

        Raises:
            InvalidInput: an argument is wrong.
            BundleError: the bundle is missing, damaged, altered or of an unknown version.
            MissingDependency: the engine's package is not installed.
            EngineError: no engine could load the graphs.
        """
        check_opening(others, {*signature(cls.from_pretrained).parameters} - {"others"})
        verify, lazy = truth("verify", verify), truth("lazy", lazy)
        options = EngineOptions.parse(engine, compute_precision=compute_precision, threads=threads)
        check_names(options)
        mode = checked_memory(memory)
        if not isinstance(observer, Observer):
            raise InvalidInput("the observer is no Observer", value=observer, hint="leave it out")
        opened = Bundle.open(bundle, digest=digest, key=key, cache=cache)
        opened.verify(full=verify)
        pipeline = cls(opened, options, observer, memory=mode)
        if not lazy:
            pipeline.load()
        return pipeline

    def load(self) -> None:
        """Load the networks for the bundle's first size, where none are loaded yet; with low memory none are.

        Raises:
            EngineError: no engine could load the graphs; nothing stays loaded then.
        """
        with self._turns.turn("loaded"):
            if self._networks.loaded:
                return
            self._networks.load_all()
        logger.info("%s", self)

    @in_turn("cloned")
    def clone(self) -> SafePipeline:
        """Another pipeline over the weights that are loaded here, for another thread to use at the same time.

        It has its own queue, buffers and activations, and stays usable when this one is closed. A call for another
        size than the one that is loaded makes it load networks of its own.

        Raises:
            InvalidInput: memory is ``"low"``: nothing stays loaded that could be shared.
            EngineError: an engine cannot be shared (those on a graphics card); open the bundle again instead.
        """
        if self._networks.memory == "low":
            raise InvalidInput(
                "a pipeline with memory='low' keeps nothing loaded that a clone could share",
                hint="open the bundle again",
            )
        self._networks.load_all()
        other = SafePipeline(self.bundle, self.options)
        self._networks.share_with(other._networks)
        other._progress = self._progress
        other._concept, other._scheduler = self._concept, self._scheduler
        return other

    def memory_plan(self, **setting: Any) -> MemoryPlan:
        """How much memory a run needs, stage by stage; nothing is loaded.

        Args:
            setting: ``height``, ``width``, ``batch``, ``branches``, ``steps`` and ``memory`` as
                :func:`~sld_edge.runtime.memory_plan.plan_memory` takes them; this pipeline's memory mode,
                and its engines' own figures where it runs on some that say them.

        Raises:
            InvalidInput: a size that the bundle lacks, or a number out of range.
            BundleError: a graph is damaged.

        >>> from sld_edge import SafePipeline
        >>> plan = SafePipeline.from_pretrained("bundle", lazy=True).memory_plan(branches=3)
        >>> plan.peak_of("low") < plan.peak_of("normal")
        True
        """
        backend = self.options.backend
        names = (backend, *(info.library for info in self.engine_info.values()))
        library = next((name for name in names if name in LIBRARIES), "")
        check_keywords("memory_plan", setting, plan_memory)
        return plan_memory(
            self.bundle, **{"memory": self._networks.memory, "library": library, **setting}
        )

    @in_turn("called")
    def __call__(
        self,
        /,
        prompt: str | Sequence[str],
        height: int | None = None,
        width: int | None = None,
        num_inference_steps: int | None = None,
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
        method: str | None = None,
        safety_concept: str | Sequence[str] | None = None,
        seed: int | Sequence[int] | None = None,
        scheduler: str | None = None,
        timesteps: Sequence[float] | None = None,
        sigmas: Sequence[float] | None = None,
        progress: bool | None = None,
        callback_on_step_end: Any = None,
        callback_on_step_end_tensor_inputs: Sequence[str] | None = None,
        **others: Any,
    ) -> Any:
        """Make images. Arguments up to ``sld_mom_beta`` are those of diffusers' Safe pipeline.

        Args:
            prompt: One text or a list of them; a text may be empty.
            height, width: Pixels; the bundle's first size when left out. It has graphs for listed sizes only.
            num_inference_steps: Denoising steps, 1 to the number of training steps; 50 when left out, or the most
                that the scheduler takes where those are fewer.
            guidance_scale: s_g, 1 to 1000.
            negative_prompt: One text for all prompts or one for each; works together with safety.
            num_images_per_prompt: Images for each prompt, next to each other in the result.
            eta: DDIM's η and TCD's γ, 0 to 1; other schedulers ignore it.
            generator: :class:`~sld_edge.Generator`, a seed, a torch generator, or a list with one for each
                image; one for all draws the whole batch at once, as in diffusers.
            latents: Starting noise ``[B, C, h, w]`` of unit variance instead of a drawn one, of any float dtype;
                computed with in float32.
            output_type: ``"pil"``, ``"np"`` (``[B, H, W, 3]`` in 0 … 1), ``"pt"`` (``[B, 3, H, W]``, needs torch) or
                ``"latent"`` (float32 ``[B, C, h, w]``; the safety head judges its picture all the same, and flagged
                latents are zeros).
            return_dict: False gives diffusers' tuple.
            callback: Called as ``callback(step, timestep, latents)`` with a float32 copy ``[B, C, h, w]`` of the
                latents.
            callback_steps: Call it at every so many steps.
            sld_guidance_scale, sld_warmup_steps, sld_threshold, sld_momentum_scale, sld_mom_beta: the
                numbers of :class:`~sld_edge.SafetyConfig`; those left out take medium's value.
            safety: ``"off"``, ``"weak"``, ``"medium"``, ``"strong"``, ``"max"``, ``"adaptive"`` or a ``SafetyConfig``;
                the bundle's default when neither this nor a ``sld_…`` number is given. Presets mean noise levels
                of a run of 50 steps, numbers count evaluations as in diffusers.
            method: ``"sld"``, the published one, or ``"adaptive"``, the stronger one of docs/guidance.md; left out
                it is the preset's or the bundle's.
            safety_concept: Text to suppress instead of the bundle's; a list runs one branch for each and
                steers every image away from the one closest to its prompt.
            seed: Seed, or one for each image, of torch's CPU generator.
            scheduler: Name of another scheduler than the checkpoint's (``"dpmpp_2m_karras"``).
            timesteps, sigmas: A custom schedule, for schedulers that take one.
            progress: Show a progress bar; by default only on a terminal.
            callback_on_step_end: Called as ``callback(pipe, step, timestep, {"latents": array})`` after every network
                evaluation; it may look at the latents, changing them is an error.
            callback_on_step_end_tensor_inputs: ``["latents"]`` or nothing.
            others: Further arguments of diffusers' pipelines; any that asks for something is refused by name.

        Returns:
            :class:`~sld_edge.runtime.output.SafeOutput`, or a tuple.

        Raises:
            InvalidInput: an argument is wrong. Nothing has been made then.
            PolicyError: the bundle's policy forbids it.
            EngineError: an engine failed, or the result is not finite. No image is returned then.
        """
        callback = called("callback", callback)
        tensors = step_tensors(callback_on_step_end_tensor_inputs)
        return_dict = truth("return_dict", return_dict)
        if callback_on_step_end is not None:
            if callback is not None:
                raise InvalidInput(
                    "callback and callback_on_step_end were given together", hint="use one of them"
                )
            callback = step_callback(self, callback_on_step_end, tensors)
        check_foreign(others, ARGUMENTS)
        arguments = CallArguments(
            prompt=prompt,
            height=height,
            width=width,
            num_inference_steps=num_inference_steps,
            guidance_scale=guidance_scale,
            negative_prompt=negative_prompt,
            num_images_per_prompt=num_images_per_prompt,
            eta=eta,
            generator=generator,
            latents=latents,
            output_type=output_type,
            callback_steps=callback_steps,
            sld_guidance_scale=sld_guidance_scale,
            sld_warmup_steps=sld_warmup_steps,
            sld_threshold=sld_threshold,
            sld_momentum_scale=sld_momentum_scale,
            sld_mom_beta=sld_mom_beta,
            safety=safety,
            method=method,
            safety_concept=safety_concept,
            seed=seed,
            scheduler=scheduler,
            timesteps=timesteps,
            sigmas=sigmas,
        )
        progress = None if progress is None else truth("progress", progress)
        output = self._made(self._resolved(arguments, {}), callback, progress)
        return output if return_dict else output.to_tuple()

    @in_turn("called")
    def encode(self, call: Call) -> Call:
        """Run the text encoder for a prepared call now, so that :meth:`run` need not; the same pictures come out.

        Args:
            call: From :meth:`prepare`.

        Returns:
            The call with its texts encoded and the prompts' harmful words judged, to be run in the place of the other.

        Raises:
            InvalidInput: the call was not prepared by this pipeline, or was run or encoded already.
            PolicyError: the bundle's policy refuses a prompt's words.
            EngineError: an engine failed.
        """
        call = self._taken(call)
        self._load_for(call)
        return self._enlisted(self._encoded(call))

    @in_turn("called")
    def run(
        self,
        call: Call,
        *,
        callback: Callable[[int, float, Floats], None] | None = None,
        progress: bool | None = None,
    ) -> SafeOutput:
        """Make the images of a prepared call, once.

        Args:
            call: From :meth:`prepare` or :meth:`encode`.
            callback, progress: As in the call.

        Raises:
            InvalidInput: the call was not prepared by this pipeline, or was run or encoded already.
            PolicyError: the bundle's policy refuses a prompt's words.
            EngineError: an engine failed, or the result is not finite. No image is returned then.

        >>> from sld_edge import SafePipeline
        >>> pipe = SafePipeline.from_pretrained("bundle")
        >>> call = pipe.prepare("a castle by a lake", safety="strong", seed=1, num_inference_steps=20)
        >>> call.schedule.steps, call.notes
        (20, ())
        >>> len(pipe.run(call).images)
        1
        """
        callback = called("callback", callback)
        progress = None if progress is None else truth("progress", progress)
        return self._made(self._taken(call), callback, progress)

    @property
    def engine_info(self) -> dict[str, EngineInfo]:
        """What runs each graph and why, as data; :attr:`engines` says it in words."""
        return self._networks.infos

    @property
    def engines(self) -> dict[str, str]:
        """What runs each graph and why, one line each; where a device ran the latest loop, how it did."""
        lines = {kind: str(info) for kind, info in self.engine_info.items()}
        return {**lines, "loop": line} if lines and (line := self._denoiser.description) else lines

    @property
    def captured(self) -> bool:
        """Whether a device ran the latest call's loop as one captured graph."""
        return self._denoiser.captured

    def set_progress_bar_config(self, *, disable: bool | None = None, **others: Any) -> None:
        """Show the progress bar always, never or on a terminal.

        Args:
            disable: False shows it always, True never, None on a terminal only.
            others: Further settings of diffusers' method, each of which is refused.

        Raises:
            InvalidInput: another setting of tqdm's, which draws diffusers' bar.
        """
        for name, value in others.items():
            raise InvalidInput(
                f"the progress bar has no setting {name}", value=value, hint="it takes disable="
            )
        self._progress = None if disable is None else not truth("disable", disable)

    def close(self) -> None:
        """Release every engine; the pipeline loads them again when it is next called.

        It waits for a call that is running, and for those that came before it. In a fork of the process that opened
        the pipeline there is nothing to release.

        Raises:
            EngineError: it is called from inside the pipeline's own call, by a callback.
        """
        if self._turns.foreign:
            return
        with self._turns.turn("closed"):
            self._networks.release()
            self._context = self._new_context()

    def __enter__(self) -> SafePipeline:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise InvalidInput(
            "a pipeline holds engines and can be neither pickled nor copied",
            hint=f"share it between threads or clone() it; another process opens {str(self.bundle.path)!r} itself",
        )

    def __repr__(self) -> str:
        low = ", memory='low'" if self._networks.memory == "low" else ""
        lines = [f"SafePipeline({str(self.bundle.path)!r}, digest={self.bundle.digest}{low})"]
        lines += [f"  {kind}: {line}" for kind, line in self.engines.items()]
        return "\n".join(lines)

    def _new_context(self) -> ContextEncoder:
        networks = self._networks  # and not self: a pipeline that is dropped must go at once

        @contextmanager
        def text() -> Iterator[Engine]:
            with networks.use("text") as engines:
                yield engines["text"]

        return ContextEncoder(self.bundle.graph("text"), text)

    def _made(
        self,
        call: Call,
        callback: Callable[[int, float, Floats], None] | None,
        progress: bool | None,
    ) -> SafeOutput:
        self._load_for(call)
        call = self._encoded(call)
        self._notes.tell(call.notes)
        noise, origins = self._noise(call)
        final = self._denoise(call, noise, callback, progress)
        with self._observer.stage("pictures"):
            pixels, flags = pictures_from_latents(self._networks, final)
        return output_from_pixels(
            self.bundle, call, self.engines, pixels, flags, latents=final, origins=origins
        )

    def _load_for(self, call: Call) -> None:
        if self.bundle.pins:
            self.bundle.check_unchanged()
        self._networks.set_size(call.request.height, call.request.width)
        self._networks.load_all()

    def _encoded(self, call: Call) -> Call:
        """The call with the context of all branches, its prompts screened."""
        if call.context is not None:
            return call
        with self._observer.stage("text"), self._context.loaded():
            if self._screen is not None:
                safety = self.bundle.manifest.safety
                call = screened(call, safety, self._screen, self._tokenizer, self._context.encode)
            return replace(call, context=self._context.encode(call.ids))

    def _noise(self, call: Call) -> tuple[Floats, list[Origin]]:
        request = call.request
        if request.latents is not None:
            return request.latents, origins_of(request.generators, request.batch)
        with self._observer.stage("noise"):
            return drawn_noise(request.latent_shape, request.generators)

    def _denoise(
        self,
        call: Call,
        noise: Floats,
        callback: Callable[[int, float, Floats], None] | None,
        progress: bool | None,
    ) -> Floats:
        schedule = call.schedule
        show = self._progress if progress is None else progress
        with (
            self._networks.use("unet", "advance") as engines,
            self._observer.stage("denoise"),
            step_progress(schedule.evaluations, show) as step_done,
        ):
            return self._denoiser.denoise(
                {"unet": engines["unet"], "advance": engines["advance"]},
                call,
                noise=noise,
                callback=callback,
                step_done=step_done,
            )


def _release_if_idle(turns: Turns, networks: Networks) -> None:
    """For a pipeline that is gone, or at the end of the program, where a thread may still be in a call."""
    if turns.try_turn():
        networks.release()
