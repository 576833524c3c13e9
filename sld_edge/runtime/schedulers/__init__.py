"""Every scheduler as a table of small matrices, computed once on the host."""

from sld_edge.runtime.schedulers.schedule import Schedule, build_schedule, scheduler_names
from sld_edge.runtime.schedulers.settings import configured_for

__all__ = ["Schedule", "build_schedule", "configured_for", "scheduler_names"]
