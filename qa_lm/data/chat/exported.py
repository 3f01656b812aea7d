"""The prompt of a model as a chat template, for tools that ask by messages.

A plain prompt becomes a template that writes the user's last message in the text of the prompt. A model that was
trained by a chat template keeps it, completed by the system turn of its training where messages have none. Either way
one question as a message has the ids of training, which is checked.
"""

from collections.abc import Iterable
from typing import Any

from qa_lm.data.encoding import PromptTemplate, encode_prompts
from qa_lm.data.tokenizer import TextTokenizer
from qa_lm.templates import parse_template

ASKED = ("What is 2 + 2?", "  Is it 'é',\n{{ x }} or 1/2?  ")
"""Questions whose ids by chat template must be those of the prompt."""
LAST_MESSAGE = (
    "{%- set last = namespace(text='') -%}"
    "{%- for message in messages -%}{%- if message['role'] == 'user' -%}"
    "{%- set last.text = message['content'] -%}"
    "{%- endif -%}{%- endfor -%}"
)
"""Jinja that every reader of chat templates runs, llama.cpp's own too."""
ESCAPES = {"\\": "\\\\", "'": "\\'", "\n": "\\n", "\r": "\\r", "\t": "\\t"}


def chat_templates(template: PromptTemplate, before: str, own: str | None) -> list[str]:
    """Chat templates that may give the ids of a prompt, the preferred one first.

    Args:
        template: the prompt template.
        before: names of the special tokens before a plain prompt.
        own: the chat template by which the model was trained; None for a plain prompt.
    """
    if template.chat is None:
        text, _, after = parse_template(template.prompt)  # a message is the filled text of all columns
        return [single_question(before + text, after)]
    if own is None:
        return []
    system = template.chat.system
    return [own] if system is None else [own, with_system(own, system)]


def matching_template(
    tokenizer: TextTokenizer, template: PromptTemplate, candidates: Iterable[str], **settings: Any
) -> str | None:
    """The first chat template by which transformers gives questions the ids of their prompts; None if none does.

    Args:
        tokenizer: the tokenizer.
        template: the prompt template.
        candidates: chat templates.
        settings: of the tokenizer as an object of transformers.
    """
    wanted = encode_prompts(list(ASKED), tokenizer, template)
    for each in candidates:
        loaded: Any = tokenizer.for_transformers(1, **settings, chat_template=each)
        try:
            found = [_ids(loaded, question) for question in ASKED]
        except Exception:  # the template is a program
            continue
        if found == wanted:
            return each
    return None


def _ids(tokenizer: Any, question: str) -> list[int]:
    message = [{"role": "user", "content": question}]
    return list(tokenizer.apply_chat_template(message, add_generation_prompt=True, return_dict=False))


def single_question(before: str, after: str, strip: bool = False) -> str:
    """A chat template that writes the user's last message between two texts.

    Args:
        before: text before the message, special tokens by their names.
        after: text after it.
        strip: whether white space around the message is removed.
    """
    parts = [literal(before), "last.text | trim" if strip else "last.text", literal(after)]
    return LAST_MESSAGE + "{{- " + " + ".join(part for part in parts if part) + " -}}"


def with_system(template: str, system: str) -> str:
    """A chat template that begins messages without a system turn with this one."""
    turn = f"[{{'role': 'system', 'content': {literal(system) or repr('')}}}] + messages"
    return f"{{%- if messages[0]['role'] != 'system' -%}}{{%- set messages = {turn} -%}}{{%- endif -%}}{template}"


def literal(text: str) -> str:
    """A string in Jinja; no two braces are neighbours, since some readers look for "{{" and "}}" everywhere."""
    if not text:
        return ""
    escaped = "".join(ESCAPES.get(character, character) for character in text)
    for pair in ("{{", "}}", "{%", "%}", "{#", "#}"):
        while pair in escaped:
            escaped = escaped.replace(pair, f"{pair[0]}' + '{pair[1]}")
    return f"'{escaped}'"
