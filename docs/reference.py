"""``make docs``: the API reference, from the docstrings of the public names.

python docs/reference.py out/docs
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import pdoc
import pdoc.render

import sld_edge

#: One page each; a page shows what its module's ``__all__`` names, or what it defines.
PAGES = ("sld_edge", "sld_edge.errors")


def build(out: Path) -> None:
    """Write the pages below ``out``; what pdoc warns of (a name or a type that it cannot resolve) is an error."""
    for name in sld_edge.__all__:
        getattr(
            sld_edge, name
        )  # they are imported when they are first used, and pdoc looks at what is there
    pdoc.render.configure(
        docformat="google", footer_text=f"sld-edge {sld_edge.__version__}", show_source=False
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pdoc.pdoc(*PAGES, output_directory=out)


if __name__ == "__main__":
    build(Path(sys.argv[1]))
