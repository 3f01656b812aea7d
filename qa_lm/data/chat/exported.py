"""The prompt of a model as a chat template, for tools that ask by messages.

A plain prompt becomes a template that writes the user's last message in the text of the prompt. A model that was
trained by a chat template keeps it, completed by the prompt and the system turn of its training. Either way one
question as a message has the ids of training, which is checked.
"""

from collections.abc import Iterable
from typing import Any

from qa_lm.data.encoding import PromptTemplate, encode_prompts
from qa_lm.data.tokenizer import TextTokenizer
from qa_lm.templates import parse_template

ASKED = ("What is 2 + 2?", "  Is it 'é',\n{{ x }} or 1/2?  ")
"""Questions whose ids by chat template must be those of the prompt."""
LONG = 1 << 30
"""Tokens of a text at most; transformers warns of longer ones."""
LAST_MESSAGE = (
    "{%- set last = namespace(text='') -%}"
    "{%- for message in messages -%}{%- if message['role'] == 'user' -%}"
    "{%- set last.text = message['content'] -%}"
    "{%- endif -%}{%- endfor -%}"
)
"""Jinja that every reader of chat templates runs, llama.cpp's own too."""
COMPLETED, OWN = "{#- the prompt of the training -#}", "{#- the chat template of the model #}"
"""Comments before what is added to a chat template, and before the template itself."""
ESCAPES = {"\\": "\\\\", "'": "\\'", "\n": "\\n", "\r": "\\r", "\t": "\\t"}


def chat_templates(template: PromptTemplate, before: str, own: str | None) -> list[str]:
    """Chat templates that may give the ids of a prompt, the preferred one first.

    Args:
        template: the prompt template.
        before: names of the special tokens before a plain prompt.
        own: the chat template by which the model was trained; None for a plain prompt.
    """
    text, _, after = parse_template(template.prompt)
    if template.chat is None:  # with columns besides the question, a message is the filled text of all columns
        return [single_question(before + text, after)]
    return [] if own is None else [own, completed(own, text, after, template.chat.system)]


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
        loaded: Any = tokenizer.for_transformers(LONG, **settings, chat_template=each)
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


def completed(own: str, before: str, after: str, system: str | None) -> str:
    """A chat template that writes the prompt of the training around each question, and its system turn if it had one.

    Args:
        own: the chat template.
        before: text of the prompt before a question.
        after: text after it.
        system: text of the system turn where messages have none; None for what the chat template does by itself.
    """
    content = " + ".join(part for part in (literal(before), "message['content']", literal(after)) if part)
    system_turn = ""
    if system is not None:
        turn = f"[{{'role': 'system', 'content': {literal(system) or repr('')}}}]"
        system_turn = (
            f"{{%- if messages[0]['role'] != 'system' -%}}{{%- set trained.messages = {turn} -%}}{{%- endif -%}}"
        )
    return (
        f"{COMPLETED}{{%- set trained = namespace(messages=[]) -%}}{system_turn}"
        "{%- for message in messages -%}{%- if message['role'] == 'user' -%}"
        f"{{%- set trained.messages = trained.messages + [{{'role': 'user', 'content': {content}}}] -%}}"
        "{%- else -%}{%- set trained.messages = trained.messages + [message] -%}{%- endif -%}{%- endfor -%}"
        f"{{%- set messages = trained.messages -%}}{OWN}{own}"
    )


def own_part(template: str) -> str:
    """A chat template without what `completed` has written before it."""
    return template.partition(OWN)[2] if template.startswith(COMPLETED) else template


def literal(text: str) -> str:
    """A string in Jinja; no two braces are neighbours, since some readers look for "{{" and "}}" everywhere."""
    if not text:
        return ""
    escaped = "".join(ESCAPES.get(character, character) for character in text)
    for pair in ("{{", "}}", "{%", "%}", "{#", "#}"):
        while pair in escaped:
            escaped = escaped.replace(pair, f"{pair[0]}' + '{pair[1]}")
    return f"'{escaped}'"
