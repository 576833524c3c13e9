"""A pipeline's door: arguments in, checked calls out, before any network is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from weakref import WeakSet

from sld_edge.bundle import Bundle
from sld_edge.engines.base import EngineOptions
from sld_edge.errors import InvalidInput
from sld_edge.runtime.arguments import ARGUMENTS, CallArguments
from sld_edge.runtime.call import Call, prepare_call
from sld_edge.runtime.defaults import CallDefaults
from sld_edge.runtime.diffusers_names import check_foreign
from sld_edge.runtime.observe import Observer
from sld_edge.runtime.output import expected_records
from sld_edge.runtime.precision import notes_on_precision
from sld_edge.runtime.tokenize import Tokenizer

#: Arguments of a call that change nothing about what is made.
_NOT_JUDGED = {
    "return_dict",
    "progress",
    "callback",
    "callback_on_step_end",
    "callback_on_step_end_tensor_inputs",
}


class CallPreparer(CallDefaults):
    """Base of a pipeline: what can be known of a call before it costs anything."""

    def __init__(self, bundle: Bundle, options: EngineOptions, observer: Observer) -> None:
        self.bundle = bundle
        self.options = options
        self._observer = observer
        self._tokenizer = Tokenizer(bundle)
        #: Calls that were prepared here and not run yet.
        self._waiting: WeakSet[Call] = WeakSet()

    def prepare(self, prompt: str | Sequence[str] | CallArguments, **arguments: Any) -> Call:
        """Check and resolve a call without running or loading a network; :meth:`run` makes its images.

        Args:
            prompt: As in the call; or all of its arguments as :class:`~sld_edge.CallArguments`.
            arguments: The call's other arguments; ``return_dict``, ``progress`` and the callbacks are not looked at.

        Returns:
            What will happen: the request, the schedule, what the loop is told about safety at every evaluation, and
            notes. Seeds that were left out have been drawn.

        Raises:
            InvalidInput, PolicyError: what the call itself would raise.
        """
        return self._enlisted(self._resolved(prompt, arguments))

    def check(self, prompt: str | Sequence[str] | CallArguments, **arguments: Any) -> None:
        """Check a call's arguments, the bundle's policy included, without running or loading a network.

        Args:
            prompt, arguments: As :meth:`prepare` takes them.

        Raises:
            InvalidInput, PolicyError: what the call itself would raise.

        >>> from sld_edge import SafePipeline
        >>> pipe = SafePipeline.from_pretrained("bundle", lazy=True)
        >>> pipe.check("a castle by a lake", guidance_scale=5, safety="medium")
        >>> pipe.check("a castle by a lake", safety="mild")
        Traceback (most recent call last):
        sld_edge.errors.InvalidInput: unknown safety preset: 'mild' — use off, weak, medium, strong, max, adaptive
        """
        self._resolved(prompt, arguments)

    def expected_records(
        self, prompt: str | Sequence[str] | CallArguments, **arguments: Any
    ) -> list[dict[str, Any]]:
        """What :meth:`check` checks, and the records that the call's images would have, as far as they are known now.

        Args:
            prompt, arguments: As :meth:`prepare` takes them.

        Raises:
            InvalidInput, PolicyError: what the call itself would raise.
        """
        return expected_records(self.bundle, self._resolved(prompt, arguments))

    def _resolved(
        self, prompt: str | Sequence[str] | CallArguments, others: dict[str, Any]
    ) -> Call:
        judged = {name: value for name, value in others.items() if name not in _NOT_JUDGED}
        with self._observer.stage("tokenise"):
            foreign = {name: judged.pop(name) for name in judged.keys() - set(ARGUMENTS)}
            check_foreign(foreign, ARGUMENTS)
            if isinstance(prompt, CallArguments):
                # Read once, into the class itself: one derived from it could say another thing the next time.
                judged = {**{name: getattr(prompt, name) for name in ARGUMENTS}, **judged}
            else:
                judged["prompt"] = prompt
            given = CallArguments(**judged)
            call = prepare_call(self.bundle, self._tokenizer, self._filled(given), self._scheduler)
            asked = self.options.compute_precision
            notes = notes_on_precision(self.bundle.manifest, asked, call.guard)
            return replace(call, notes=(*call.notes, *notes))

    def _enlisted(self, call: Call) -> Call:
        self._waiting.add(call)
        return call

    def _taken(self, call: Call) -> Call:
        """A call that was prepared here, which can be taken once: its generators go on.

        Raises:
            InvalidInput: it is none.
        """
        if type(call) is not Call or call not in self._waiting:
            raise InvalidInput(
                "this call was not prepared by this pipeline, or was run already",
                value=type(call).__name__,
                hint="run(prepare(…)) each call once",
            )
        self._waiting.discard(call)
        return call
