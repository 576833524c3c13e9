"""Every scheduler as a table of small matrices, computed once on the host."""

from sld_edge.runtime.schedulers.schedule import Schedule, build_schedule, scheduler_names

__all__ = ["Schedule", "build_schedule", "scheduler_names"]
