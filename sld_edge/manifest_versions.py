"""Manifests of earlier versions as the present one's.

Version 1 has no graphs in 8 bits, versions 1 and 2 no adaptive method and no gates of precision. Before version 4 ports
have no roles, and there are two graphs of the guidance equations: ``advance`` for three branches and ``advance_many``
for any number of them, which for three gives the same bits.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from sld_edge.kinds import role_of

FORMAT = "sld-edge-bundle"
#: What is written.
VERSION = 4
OLDEST_VERSION = 1
_WITH_ROLES = 4
#: Kinds of graphs that have become another, or have gone.
_KINDS = {"advance": None, "advance_many": "advance"}


def as_present(plain: Any) -> Any:
    """A decoded manifest in the present version's form; what is no manifest stays as it is."""
    if not isinstance(plain, dict) or not isinstance(plain.get("graphs"), list):
        return plain
    version = plain.get("version")
    if not isinstance(version, int) or version >= _WITH_ROLES:
        return plain
    return {**plain, "version": VERSION, "graphs": list(_graphs(plain["graphs"]))}


def _graphs(graphs: list[Any]) -> Iterator[Any]:
    for graph in graphs:
        if not isinstance(graph, dict):
            yield graph
            continue
        kind = _KINDS.get(graph.get("kind", ""), graph.get("kind"))
        if kind is not None:
            ports = {side: _ports(kind, graph.get(side)) for side in ("inputs", "outputs")}
            yield {**graph, "kind": kind, **ports}


def _ports(kind: Any, ports: Any) -> Any:
    if not isinstance(ports, list):
        return ports
    return [
        {**port, "role": role_of(kind, str(port.get("name")))}
        if isinstance(port, Mapping)
        else port
        for port in ports
    ]
