"""Pages from templates: one frame, one style and one script for all of them, put together into one file that needs nothing else."""
from __future__ import annotations

from typing import Any


def fill(template: str, /, **facts: Any) -> str:
    """The page of `template`.html with these facts; text is escaped. Raises jinja2.UndefinedError for a fact that is missing."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    room = PackageLoader("sim", "report")
    made = Environment(loader=room, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return made.get_template(f"{template}.html").render(**facts)
