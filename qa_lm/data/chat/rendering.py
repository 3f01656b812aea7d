"""Render the chat template of a tokenizer's folder, in the sandbox of transformers."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qa_lm.data.chat.exported import own_part
from qa_lm.data.encoding import TEMPLATE_FILE, PromptTemplate
from qa_lm.errors import UserError, first_line

FIXED = {
    "enable_thinking": "{%- set enable_thinking = false +%}",
    "strftime_now": "{%- macro strftime_now(format) -%}26 Jul 2024{%- endmacro +%}",
}
"""What some templates read, and how a run fixes it: answers without thinking, and a date instead of today's."""


def with_fixed_values(template: str) -> str:
    """The template, preceded by those entries of `FIXED` that it reads."""
    return "".join(fixed for name, fixed in FIXED.items() if name in template and fixed not in template) + template


@dataclass(frozen=True)
class Renderer:
    """A chat template that renders texts as turns.

    Args:
        tokenizer: a tokenizer of transformers, with the template.
        folder: its folder, for messages.
    """

    tokenizer: Any
    folder: Path

    def __call__(self, user: str, answer: str | None = None, system: str | None = None, then: str | None = None) -> str:
        """Render a conversation.

        Args:
            user: text of the user's turn.
            answer: text of the assistant's turn; None to end where it begins.
            system: text of the system turn; None for none.
            then: text of a second turn of the user.

        Raises:
            UserError: the template refuses the conversation.
        """
        turns = (("system", system), ("user", user), ("assistant", answer), ("user", then))
        advice = "" if system is None else "; leave out data.system if it knows no system turn"
        return self.conversation([(role, text) for role, text in turns if text is not None], advice)

    def conversation(self, turns: Sequence[tuple[str, str]], advice: str = "") -> str:
        """Render turns, each a role and a text; after a turn of the user, up to where the answer begins.

        Raises:
            UserError: the template refuses the conversation; the message ends with the advice.
        """
        messages = [{"role": role, "content": text} for role, text in turns]
        try:
            return str(
                self.tokenizer.apply_chat_template(
                    messages, tokenize=False, add_generation_prompt=messages[-1]["role"] == "user"
                )
            )
        except Exception as error:  # the template is a program
            raise self.error(f"cannot be used ({first_line(error)}){advice}") from None

    def error(self, what: str) -> UserError:
        """An error about this template, in one line."""
        return UserError(f"{self.folder}: its chat template {what}", "data.template")


def has_chat_template(folder: Path) -> bool:
    """Whether a tokenizer's folder has a chat template, without loading the tokenizer. That of a plain prompt, which
    model/ of a run has for other tools, is none."""
    if is_plain(folder):
        return False
    if (folder / "chat_template.jinja").is_file():
        return True
    try:
        return bool(json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8")).get("chat_template"))
    except (OSError, ValueError, AttributeError, RecursionError):
        return False


def is_plain(folder: Path) -> bool:
    """Whether a run with a plain prompt wrote this folder."""
    return (folder / TEMPLATE_FILE).is_file() and PromptTemplate.load(folder).chat is None


def load_renderer(folder: Path) -> Renderer:
    """The chat template of a folder: chat_template.jinja, or `chat_template` in tokenizer_config.json.

    Raises:
        UserError: the folder has none, or transformers cannot load its tokenizer.
    """
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    kind: Any = PreTrainedTokenizerFast if (folder / "tokenizer.json").is_file() else AutoTokenizer
    try:
        tokenizer = kind.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # errors of many libraries
        raise UserError(f"{folder}: the tokenizer cannot be loaded: {first_line(error)}") from None
    if not tokenizer.chat_template or is_plain(folder):
        raise UserError(
            f"{folder}: has no chat template (chat_template.jinja); choose data.template=plain", "data.template"
        )
    try:
        tokenizer.chat_template = with_fixed_values(own_part(tokenizer.get_chat_template()))
    except ValueError as error:  # several templates, none of them called default
        raise UserError(f"{folder}: {first_line(error)}", "data.template") from None
    return Renderer(tokenizer, folder)
