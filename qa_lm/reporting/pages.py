"""How pages are filled and written.

- Whatever a template prints is escaped, by the environment and not by each template: text of pairs, models and file
  names can be hostile. Only what our own code has marked as HTML or Markdown is printed as it is.
- A file is written beside its place and renamed: a reader never sees half of one.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from qa_lm.reporting import markdown
from qa_lm.reporting.wording import decimal, percent, printable, whole

TEMPLATES = Path(__file__).parent / "templates"


def html_page(template: str, content: dict[str, Any]) -> str:
    """The template filled for a browser."""
    return _render(template, _printable, content)


def markdown_page(template: str, content: dict[str, Any]) -> str:
    """The template filled as Markdown."""
    return _render(template, markdown.escape, content)


def _render(template: str, text: Callable[[Any], Any], content: dict[str, Any]) -> str:
    """Fill a template.

    Args:
        template: its name.
        text: what each printed value goes through before the environment escapes it as HTML, if it is not Markup yet.
        content: the values.
    """
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        finalize=text,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.globals |= {"fenced": markdown.fenced}
    environment.filters |= {"percent": percent, "decimal": decimal, "whole": whole}
    return environment.get_template(template).render(content)


def _printable(value: Any) -> Any:
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value
