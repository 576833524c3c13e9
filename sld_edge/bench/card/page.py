"""The report as one HTML page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sld_edge.bench.card.report import Report
from sld_edge.bench.card.table import shares_of, table_of_peers
from sld_edge.bench.compare.page import bars
from sld_edge.bench.compare.table import entries_that_ran
from sld_edge.bench.machine import facts_of, plain
from sld_edge.bench.pages import page
from sld_edge.bench.tables import Table


def page_from_report(report: Report) -> str:
    """The whole page."""
    compare, machine = report.part("compare").result, report.part("machine").result
    ran, kernels = entries_that_ran(compare), report.part("kernels").result
    checks = [
        {**one, "table": _table_of_checks(one)}
        for name in ("tiny-check", "model-check")
        for one in report.part(name).result.get("bundles", [])
    ]
    return page(
        "card",
        title="A dry run without a card" if report.dry_run else "A card in a few minutes",
        subtitle=f"{report.created} · {report.device}",
        command=report.command,
        warning_lines=report.warnings,
        parts=Table(
            head=("part", "", "seconds", "of", "reason"),
            rows=[(one.name, one.status, f"{one.seconds:.1f}", f"{one.limit:.0f}", one.reason)
                  for one in report.parts],
        ),
        rule=compare.get("rule", ""),
        peers=table_of_peers(report),
        images=bars(ran, "image", "seconds an image"),
        left_out=[
            f"{one['title']}: {one.get('skipped') or one['reason']}"
            for one in compare.get("peers", [])
            if "skipped" in one or not one["counts"]
        ],
        engines=[(one["title"], one["description"]) for one in ran],
        kernels=[
            {**one, "shares": shares_of(one, digits=1), "table": _table_of_kernels(one)}
            for one in kernels.get("tables", [])
        ],
        unseen=[f"{name}: {reason}" for name, reason in kernels.get("skipped", {}).items()]
        if kernels.get("tables")
        else [],
        checks=checks,
        model=_facts(report.part("model").result),
        card=_facts({key: value for key, value in machine.items() if key != "machine"}),
        machine=facts_of(report.machine, {}),
    )  # fmt: skip


def _table_of_kernels(found: dict[str, Any]) -> Table:
    total = found["seconds"]
    return Table(
        head=("kernel", "kind", "time", "share", "launches"),
        rows=[
            (one["name"], one["kind"], f"{one['seconds'] * 1e3:.3f} ms",
             f"{one['seconds'] / total:.1%}" if total else "–", f"{one['launches']:.0f}")
            for one in found["top"]
        ],
    )  # fmt: skip


def _table_of_checks(bundle: dict[str, Any]) -> Table:
    return Table(
        head=("library", "check", "", "detail"),
        rows=[
            *((one["backend"], one["check"], one["status"], one["detail"]) for one in bundle["outcomes"]),
            *((one["backend"], "latency", one["way"], one["line"]) for one in bundle["latencies"]),
        ],
    )  # fmt: skip


def _facts(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(key, plain(value, "; ")) for key, value in result.items()]
