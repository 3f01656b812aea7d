"""The chat template of a plain prompt, for tools that ask by messages: the user's last message, in the prompt's text."""

from qa_lm.data.encoding import PromptTemplate
from qa_lm.templates import parse_template

LAST_MESSAGE = (
    "{%- set last = namespace(text='') -%}"
    "{%- for message in messages -%}{%- if message['role'] == 'user' -%}"
    "{%- set last.text = message['content'] -%}"
    "{%- endif -%}{%- endfor -%}"
)
"""Jinja that every reader of chat templates runs, llama.cpp's own too."""
ESCAPES = {"\\": "\\\\", "'": "\\'", "\n": "\\n", "\r": "\\r", "\t": "\\t"}


def plain_chat_template(template: PromptTemplate, special_before: str = "") -> str:
    """A chat template in Jinja that renders the prompt of the last user's message.

    Args:
        template: a template without a chat turn. With columns besides the question, a message is the filled text.
        special_before: names of the special tokens before a prompt.
    """
    before, _, after = parse_template(template.prompt)
    parts = [_literal(special_before + before), "last.text", _literal(after)]
    return LAST_MESSAGE + "{{- " + " + ".join(part for part in parts if part) + " -}}"


def _literal(text: str) -> str:
    """A string of Jinja; no two braces are neighbours, since some readers look for "{{" and "}}" everywhere."""
    if not text:
        return ""
    escaped = "".join(ESCAPES.get(character, character) for character in text)
    for pair in ("{{", "}}", "{%", "%}", "{#", "#}"):
        while pair in escaped:
            escaped = escaped.replace(pair, f"{pair[0]}' + '{pair[1]}")
    return f"'{escaped}'"
