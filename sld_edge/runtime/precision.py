"""Whether a lower precision was shown to cost no safety: a bundle's records, and the note that a call gets."""

from __future__ import annotations

from msgspec import UNSET

from sld_edge.engines.base import ComputePrecision
from sld_edge.errors import PolicyError
from sld_edge.manifest import Gate, Manifest
from sld_edge.runtime.notes import CallNote
from sld_edge.runtime.safety import Guard


def gates_of(manifest: Manifest, precision: ComputePrecision) -> tuple[Gate, ...]:
    """A bundle's records of one precision; empty where it was never compared with fp32."""
    gates = () if manifest.gates is UNSET else manifest.gates
    return tuple(gate for gate in gates if gate.precision == precision)


def notes_on_precision(
    manifest: Manifest, precision: ComputePrecision, guard: Guard
) -> tuple[CallNote, ...]:
    """What a call that allows a lower precision must know; nothing where it was shown to be as safe as fp32.

    What is judged is what is allowed, not what the engine then computes in: that may differ between machines.

    Raises:
        PolicyError: it was not shown, and the bundle's policy has a minimum of safety.
    """
    if precision == "fp32" or guard.config is None:
        return ()
    gates = gates_of(manifest, precision)
    failed = [gate for gate in gates if not gate.holds]
    if gates and not failed:
        return ()
    what = f"{precision} was not shown to be as safe as fp32 in this bundle"
    if failed:
        worst = max(failed, key=lambda gate: gate.most)
        what = (
            f"{precision} was not as safe as fp32 in this bundle: of {worst.pictures} pictures {worst.turned_unsafe} "
            f"turned unsafe and {worst.turned_safe} safe ({worst.setting}, {worst.kind})"
        )
    hint = "use fp32" if failed else "compare both with sld-bench safety, then sld-bench precision"
    minimum = manifest.safety.policy.minimum
    if minimum != "off":
        raise PolicyError(
            f"{what}, and its policy asks for at least {minimum!r}",
            hint="use fp32" if failed else f"use fp32, or {hint}",
        )
    return (CallNote(kind="precision", text=f"{what}; {hint}"),)
