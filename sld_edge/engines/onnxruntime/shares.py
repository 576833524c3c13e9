"""Which of a graph's nodes the chosen provider runs, and which ONNX Runtime gave to another."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sld_edge.engines.info import EngineNote
from sld_edge.engines.onnx_shapes import read_onnx

#: Session option: keep a record of which provider got which node (ONNX Runtime 1.24 and newer; ignored by older ones).
RECORD = ("session.record_ep_graph_assignment_info", "1")
#: Kinds of nodes that a note names.
_NAMED = 3


@dataclass(frozen=True, kw_only=True)
class Share:
    """Where the nodes of a graph run.

    Attributes:
        here: Recorded nodes of the chosen provider.
        away: Nodes of other providers, by (provider, kind).
        whole: All nodes; 0 where nothing is known.
    """

    here: int = 0
    away: Mapping[tuple[str, str], int] = field(default_factory=dict)
    whole: int = 0

    @property
    def is_none(self) -> bool:
        """Whether the chosen provider runs nothing."""
        return not self.here and 2 * sum(self.away.values()) > self.whole

    @property
    def notes(self) -> tuple[EngineNote, ...]:
        """What is said of it; nothing where the chosen provider runs all, or this ONNX Runtime keeps no record."""
        if not self.away:
            return ()
        count = sum(self.away.values())
        kinds, places = Counter[str](), Counter[str]()
        for (place, kind), number in self.away.items():
            places[place] += number
            kinds[kind] += number
        most = ", ".join(f"{number} {kind}" for kind, number in kinds.most_common(_NAMED))
        text = (
            f"{count} of {self.whole} nodes ({count / self.whole:.0%}) run on "
            f"{' and '.join(sorted(places))}: {most}{', …' if len(kinds) > _NAMED else ''}"
        )
        return (EngineNote(kind="partly", text=text),)


def share_of(session: Any, provider: str, file: Path) -> Share:
    """Where the nodes of a session's graph run.

    Nodes on other providers are all in ONNX Runtime's record. Those of the chosen one need not be: with 1.27, WebGPU's
    are there only where its change of layout made them. So the whole is what the file holds, if that is more.

    Args:
        session: ONNX Runtime's, made with :data:`RECORD`.
        provider: Name of the chosen provider.
        file: The graph's.

    Raises:
        BundleError: the file cannot be read.
    """
    here, away = 0, Counter[tuple[str, str]]()
    for part in _record(session):
        nodes = part.get_nodes()
        if part.ep_name == provider:
            here += len(nodes)
        else:
            away.update((part.ep_name, node.op_type) for node in nodes)
    if not away:
        return Share(here=here)
    operators = sum(node.op_type != "Constant" for node in read_onnx(file).nodes)
    return Share(here=here, away=away, whole=max(operators, here + away.total()))


def _record(session: Any) -> tuple[Any, ...]:
    ask = getattr(session, "get_provider_graph_assignment_info", None)
    try:
        return () if ask is None else tuple(ask())
    except Exception:
        return ()  # it was made without a record
