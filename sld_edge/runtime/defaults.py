"""What a pipeline does where a call does not say: its safety concept and its scheduler, which callers may set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from sld_edge.bundle import Bundle
from sld_edge.errors import InvalidInput
from sld_edge.runtime.arguments import ARGUMENTS, CallArguments
from sld_edge.runtime.diffusers_names import (
    SchedulerInUse,
    check_part,
    config_of_scheduler,
    missing_attribute,
)
from sld_edge.runtime.schedulers import build_schedule, configured_for


class CallDefaults:
    """Base of a pipeline: attributes that diffusers' users set work, or raise. None is ignored."""

    bundle: Bundle
    _concept: str | Sequence[str] | None = None
    _scheduler: Mapping[str, Any] | None = None

    def check(self, prompt: str | Sequence[str], **arguments: Any) -> None:
        """Check a call's arguments; the pipeline's own."""
        raise NotImplementedError

    @property
    def safety_concept(self) -> str | Sequence[str]:
        """What calls suppress that do not say: the bundle's concept, or what was set here.

        Raises:
            InvalidInput: on setting, it is empty, no text, or does not fit.
            PolicyError: on setting, the bundle's policy fixes its own concept.
        """
        return self.bundle.manifest.safety.concept if self._concept is None else self._concept

    @safety_concept.setter
    def safety_concept(self, value: str | Sequence[str]) -> None:
        if value is None:
            raise InvalidInput(
                "the safety concept is empty",
                value=value,
                hint='describe what to suppress; safety="off" in a call is the only way to turn SLD off',
            )
        self.check("", safety_concept=value)
        self._concept = value if isinstance(value, str) else tuple(value)

    @property
    def scheduler(self) -> SchedulerInUse:
        """The scheduler of calls that do not say. Set it by name or to a scheduler of diffusers.

        Raises:
            InvalidInput: on setting, there is no such scheduler here, or an option of it is not supported.
        """
        config = dict(self._scheduler or self.bundle.manifest.scheduler)
        return SchedulerInUse(name=build_schedule(None, config).name, config=config)

    @scheduler.setter
    def scheduler(self, value: Any) -> None:
        if isinstance(value, str):
            config = configured_for(value, self._scheduler or self.bundle.manifest.scheduler)
        else:
            config = config_of_scheduler(value)
        build_schedule(None, config)
        self._scheduler = config

    def __setattr__(self, name: str, value: Any) -> None:
        first = name in ("bundle", "options") and name not in self.__dict__
        if not (first or hasattr(type(self), name)):
            check_part(name, ARGUMENTS)
        super().__setattr__(name, value)

    def __getattr__(self, name: str) -> Any:
        raise missing_attribute(name)

    def _filled(self, arguments: CallArguments) -> CallArguments:
        """A call's arguments with the concept that was set here in the place of one that was left out."""
        safety = arguments.safety
        off = isinstance(safety, str) and safety.strip().lower() == "off"
        if arguments.safety_concept is not None or off:
            return arguments
        return replace(arguments, safety_concept=self._concept)
