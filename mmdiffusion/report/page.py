"""The page itself: a template filled, with its style and its script inside."""

import json
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

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
    text = filled("page.html", content)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def framed(template: str, content: dict[str, Any], height: int) -> str:
    """A page inside an element, with its style and its script to itself: what a notebook shows.

    Args:
        template: Name of the page's template.
        content: What the template names.
        height: Of the element, in pixels.
    """
    page = escape(filled(template, content))
    return f'<div><iframe srcdoc="{page}" style="width: 100%; height: {height}px; border: 0"></iframe></div>'


def filled(template: str, content: dict[str, Any]) -> str:
    """The text of a page.

    Args:
        template: Name of its template.
        content: What the template names, beside style and script.
    """
    loader = FileSystemLoader(FOLDER)
    page = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    page.filters |= {"as_json": as_json, "in_words": in_words, "in_word": in_word}
    page.globals |= {"protocol": protocol, "shared": shared, "curves": curves, "body": skeleton, "timeline": TIMELINE}
    parts = {name: Markup((FOLDER / f"page.{name}").read_text(encoding="utf-8")) for name in ("css", "js")}
    return page.get_template(template).render(**parts, **content)


def as_json(value: Any) -> Markup:
    """Data for the script of the page: nothing in it can end the element that holds it."""
    return Markup(json.dumps(value, separators=(",", ":")).replace("<", "\\u003c"))
