"""The page itself: a template filled, with its style and its script inside."""

import json
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from mmdiffusion.callbacks.table import in_word, in_words, protocol, shared
from mmdiffusion.report import curves, skeleton

FOLDER = Path(__file__).parent
TIMELINE = 900
"""Width of a clip's time line."""


def write_page(path: Path, content: dict[str, Any]) -> None:
    """Write a page.

    Args:
        path: The file.
        content: What the template names.
    """
    loader = FileSystemLoader(FOLDER)
    page = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    page.filters |= {"as_json": as_json, "in_words": in_words, "in_word": in_word}
    page.globals |= {"protocol": protocol, "shared": shared, "curves": curves, "body": skeleton, "timeline": TIMELINE}
    parts = {name: Markup((FOLDER / f"page.{name}").read_text(encoding="utf-8")) for name in ("css", "js")}
    text = page.get_template("page.html").render(**parts, **content)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def as_json(value: Any) -> Markup:
    """Data for the script of the page: nothing in it can end the element that holds it."""
    return Markup(json.dumps(value, separators=(",", ":")).replace("<", "\\u003c"))
