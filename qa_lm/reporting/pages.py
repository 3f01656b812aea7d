"""Write a report as HTML and as Markdown, both from one template.

The environment, not each template, escapes every value that a template prints, because text of pairs, models and file
names can be hostile. Only text that our own code has marked as HTML or Markdown is printed unescaped.
"""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from qa_lm.reporting import markdown
from qa_lm.reporting.wording import decimal, format_int, percent, printable
from qa_lm.run.atomic import write_text

TEMPLATES = Path(__file__).parent / "templates"


def write_pages(page: Path, template: str, content: dict[str, Any]) -> Path:
    """Write a report as an HTML page and, next to it, as Markdown. Return the path of the page.

    Args:
        page: the path of the HTML page.
        template: file name of the template.
        content: the template's variables.
    """
    content = {**content, "html": page.name}
    write_text(page.with_suffix(".md"), _filled(template, content, *MARKDOWN))
    write_text(page, _filled(template, content, *HTML))
    return page


def read_templates(template: str) -> None:
    """Read and compile a template with its parts; `write_pages` then needs no time for it in this process."""
    for parts, text in FORMATS:
        for name in (template, parts):
            _environment(text).get_template(name)


def _filled(template: str, content: dict[str, Any], parts: str, text: Callable[[Any], Any]) -> str:
    """Fill a template.

    Args:
        template: file name of the template.
        content: the template's variables.
        parts: file name of the macros for the parts of a page, in one format.
        text: converts each printed value, before the environment escapes it as HTML unless it is Markup.
    """
    return _environment(text).get_template(template).render(content, parts=parts).lstrip()


@functools.cache
def _environment(text: Callable[[Any], Any]) -> Environment:
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
    return environment


def _printable(value: Any) -> Any:
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value


MARKDOWN, HTML = ("markdown.j2", markdown.escape), ("html.j2", _printable)
FORMATS: tuple[tuple[str, Callable[[Any], Any]], ...] = (MARKDOWN, HTML)
"""File name of the macros of each format, and what converts a printed value."""
