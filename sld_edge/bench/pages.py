"""The reports' HTML pages: Jinja2 templates over one base, each a file that needs nothing else."""

from __future__ import annotations

from functools import cache
from typing import Any

from sld_edge.bench.extra import require
from sld_edge.bench.figures import DARK, LIGHT
from sld_edge.bench.tables import gib, seconds


def require_pages() -> None:
    """Find out before minutes are spent on measuring that no page can be made.

    Raises:
        MissingDependency: a package is not installed.
    """
    require("jinja2", "matplotlib")


def page(template: str, **values: Any) -> str:
    """A whole page.

    Args:
        template: Name of the body's file in ``templates``, without its ending.
        values: What it shows; text is escaped there. All take ``title``, ``command`` ….
    """
    require_pages()
    text: str = _environment().get_template(f"{template}.html.j2").render(values)
    return text


@cache
def _environment() -> Any:
    import jinja2

    found = jinja2.Environment(
        loader=jinja2.PackageLoader("sld_edge.bench"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters |= {"seconds": seconds, "gib": gib}
    found.globals |= {"light": LIGHT, "dark": DARK}
    return found
