"""HTML pages from templates beside this file; all share one style, which follows the reader's light or dark scheme."""

from importlib import resources
from typing import Any

import jinja2

from gblend.storage import write_bytes


def render(template: str, **values: Any) -> str:
    """A page as text. ``palettes`` among the values are the head colours of both schemes (`gblend.svg.palette_css`)."""
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=jinja2.FunctionLoader(lambda name: resources.files("gblend").joinpath(name).read_text("utf-8")),
    )
    return environment.get_template(template).render(**values)


def write_page(out: str, text: str) -> str:
    """Write a page to a path or fsspec URL and return that."""
    write_bytes(out, text.encode())
    return out
