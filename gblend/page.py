"""HTML pages from templates beside this file; all share one style, which follows the reader's light or dark scheme."""

from importlib import resources
from typing import Any

import fsspec
import jinja2


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
    fs, place = fsspec.core.url_to_fs(out)
    fs.makedirs(place.rsplit("/", 1)[0], exist_ok=True)
    with fs.open(place, "w", encoding="utf-8") as file:
        file.write(text)
    return out
