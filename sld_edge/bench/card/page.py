"""The report as one HTML page."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from sld_edge.bench import html
from sld_edge.bench.card.report import Part, Report
from sld_edge.bench.compare.page import bars
from sld_edge.bench.compare.picture import IDENTICAL
from sld_edge.bench.latency.page import machine_facts
from sld_edge.bench.latency.table import gib, seconds

_HEAD = (
    "pipeline", "rows", "step p50", "image p50", "times as fast", "PSNR", "judged", "memory", "joules",
)  # fmt: skip
_NOTHING = '<p class="note">Nothing was found: see the parts above.</p>'


def page_from_report(report: Report) -> str:
    """The whole page."""
    compare = report.part("compare").result
    entries = [one for one in compare.get("peers", []) if "skipped" not in one]
    table = compare_rows(report)
    return html.whole_page(
        __package__,
        title="A card in a few minutes" if not report.dry_run else "A dry run without a card",
        subtitle=f"{report.created} · {report.device}",
        command=report.command,
        warning_lines=report.warnings,
        parts={
            "parts": html.table(
                ("part", "", "seconds", "of", "reason"),
                (
                    (one.name, one.status, f"{one.seconds:.1f}", f"{one.limit:.0f}", one.reason)
                    for one in report.parts
                ),
            ),
            "rule": escape(compare.get("rule", "")),
            "compare": html.table(table[0], table[1:]) if entries else _NOTHING,
            "plot": bars(entries, "image", "seconds an image") if entries else "",
            "left_out": html.warnings(
                f"{one['title']}: {one.get('skipped') or one['reason']}"
                for one in compare.get("peers", [])
                if "skipped" in one or not one["counts"]
            ),
            "engines": html.facts((one["title"], one["description"]) for one in entries),
            "kernels": _kernels(report.part("kernels")),
            "checks": "".join(_checks(report.part(name)) for name in ("tiny-check", "model-check"))
            or _NOTHING,
            "model": _facts(report.part("model").result) or _NOTHING,
            "card": _facts(report.part("machine").result, without=("machine",)),
            "machine": machine_facts(report.machine, {}) if report.machine else _NOTHING,
        },
    )


def compare_rows(report: Report) -> list[Sequence[str]]:
    """The comparison's table, its head first."""
    rows: list[Sequence[str]] = [_HEAD]
    for one in report.part("compare").result.get("peers", []):
        if "skipped" in one:
            continue
        faster, decibels = one["faster_than_eager"], one["psnr_db"]
        joules = ", ".join(f"{meter} {value:.0f}" for meter, value in one["joules"].items())
        rows.append((
            one["title"],
            str(one["branches"]),
            seconds(one["step"]["p50"]) if one["step"] else "–",
            seconds(one["image"]["p50"]),
            f"{faster['value']:.2f}" if faster else "–",
            "–" if decibels is None else "equal" if decibels == IDENTICAL else f"{decibels:.1f} dB",
            "right" if one["counts"] else "(!)",
            gib(one["device_bytes"]),
            joules or "–",
        ))  # fmt: skip
    return rows


def kernel_rows(report: Report) -> list[Sequence[str]]:
    """Each table's sums, the head first."""
    rows: list[Sequence[str]] = [("kernels of a step", "time", "launches", "shares")]
    for table in report.part("kernels").result.get("tables", []):
        shares = ", ".join(f"{kind} {share:.0%}" for kind, share in table["kinds"].items())
        rows.append(
            (table["subject"], seconds(table["seconds"]), f"{table['launches']:.0f}", shares)
        )
    return rows


def _kernels(part: Part) -> str:
    tables = part.result.get("tables", [])
    if not tables:
        return _NOTHING
    shown = []
    for table in tables:
        shares = ", ".join(f"{kind} {share:.1%}" for kind, share in table["kinds"].items())
        total = table["seconds"]
        shown.append(
            f"<h3>{escape(table['subject'])}</h3>"
            f"<p>{seconds(total)}, {table['launches']:.0f} launches: {escape(shares)}</p>"
            + html.table(
                ("kernel", "kind", "time", "share", "launches"),
                (
                    (one["name"], one["kind"], f"{one['seconds'] * 1e3:.3f} ms",
                     f"{one['seconds'] / total:.1%}" if total else "–", f"{one['launches']:.0f}")
                    for one in table["top"]
                ),
            )
        )  # fmt: skip
    skipped = (f"{name}: {reason}" for name, reason in part.result.get("skipped", {}).items())
    return "".join(shown) + html.warnings(skipped)


def _checks(part: Part) -> str:
    shown = ""
    for one in part.result.get("bundles", []):
        shown += (
            f"<h3>{escape(one['name'])}, {one['precision']}, {one['steps']} steps: "
            f"{escape(one.get('verdict', 'not ended'))}</h3>"
        )
        rows = [(row["backend"], row["check"], row["status"], row["detail"]) for row in one["outcomes"]]  # fmt: skip
        rows += [(row["backend"], "latency", row["way"], row["line"]) for row in one["latencies"]]
        shown += html.table(("library", "check", "", "detail"), rows)
    return shown


def _facts(result: dict[str, Any], without: Sequence[str] = ()) -> str:
    pairs = [(key, _plain(value)) for key, value in result.items() if key not in without]
    return html.facts(pairs) if pairs else ""


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_plain(part)}" for key, part in value.items())
    if isinstance(value, list):
        return "; ".join(map(_plain, value))
    return str(value)
