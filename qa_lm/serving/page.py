"""The page to ask questions: HTML, a script and a style, all from the server itself."""

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from qa_lm.reporting.pages import TEMPLATES
from qa_lm.reporting.wording import printable

PAGE_FILES = {
    "/": ("page.html.j2", "text/html"),
    "/page.js": ("page.js", "text/javascript"),
    "/page.css": ("page.css.j2", "text/css"),
}
"""By path, the template and the media type."""
OWN_TEMPLATES = Path(__file__).parent / "templates"


def page_files(name: str, conversation: str, needs_key: bool) -> dict[str, tuple[str, str]]:
    """The content and media type of each path of the page.

    Args:
        name: name of the model.
        conversation: how much of a conversation it reads.
        needs_key: whether the page asks for a key.
    """
    environment = Environment(
        loader=FileSystemLoader([OWN_TEMPLATES, TEMPLATES]),
        autoescape=lambda template: template is not None and template.startswith("page.html"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    content = {"name": printable(name), "conversation": conversation, "needs_key": needs_key}
    return {
        path: (environment.get_template(template).render(content), kind)
        for path, (template, kind) in PAGE_FILES.items()
    }
