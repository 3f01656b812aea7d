"""Fill the templates of the reports.

The environment, not each template, escapes every value that a template prints, because text of pairs, models and file
names can be hostile. Only text that our own code has marked as HTML or Markdown is printed unescaped.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from qa_lm.reporting import markdown
from qa_lm.reporting.wording import decimal, format_int, percent, printable

TEMPLATES = Path(__file__).parent / "templates"


def html_page(template: str, content: dict[str, Any]) -> str:
    """Fill a template as an HTML page."""
    return _render(template, _printable, content)


def markdown_page(template: str, content: dict[str, Any]) -> str:
    """Fill a template as Markdown."""
    return _render(template, markdown.escape, content)


def _render(template: str, text: Callable[[Any], Any], content: dict[str, Any]) -> str:
    """Fill a template.

    Args:
        template: file name of the template.
        text: converts each printed value, before the environment escapes it as HTML unless it is Markup.
        content: the template's variables.
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
    environment.filters |= {"percent": percent, "decimal": decimal, "format_int": format_int}
    return environment.get_template(template).render(content)


def _printable(value: Any) -> Any:
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value
