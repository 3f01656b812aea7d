"""Whole conversations as a chat template writes them, for a trained model that is asked again.

As in `qa_lm.data.chat.prompts`, the template is rendered with marks instead of the texts of the turns, and only its own
text is encoded with special tokens.
"""

from collections.abc import Sequence
from pathlib import Path

from qa_lm.data.chat.prompts import ODD_TEXT, ChatCut
from qa_lm.data.chat.rendering import load_renderer
from qa_lm.data.encoding import PromptTemplate, encode_prompts
from qa_lm.data.tokenizer import TextTokenizer
from qa_lm.errors import UserError
from qa_lm.templates import parse_template

FIRST_MARK = 0xE100
"""Code point of the mark of the first turn, for private use."""
MOST_TURNS = 256


class Conversations:
    """Encodes conversations for a model that was trained by a chat template.

    Args:
        folder: the model's folder.
        tokenizer: its tokenizer.
        template: its prompt template.

    Raises:
        UserError: the chat template cannot be used, or would write another prompt than the one that was trained.
    """

    def __init__(self, folder: Path, tokenizer: TextTokenizer, template: PromptTemplate) -> None:
        assert template.chat
        self._cut = ChatCut(load_renderer(folder), tokenizer, template.chat.system)
        self._template = template
        question = ODD_TEXT.format(mark="?").strip()
        if self.ids([("user", question)]) != encode_prompts([question], tokenizer, template)[0]:
            raise self._cut.render.error("writes another prompt than the one that was trained")

    def ids(self, turns: Sequence[tuple[str, str]]) -> list[int]:
        """The ids of a conversation, up to where the next answer begins.

        Args:
            turns: role and text of each turn. Without a system turn, that of the training is written.

        Raises:
            UserError: the template refuses the conversation.
        """
        if len(turns) > MOST_TURNS:
            raise UserError(f"a conversation has at most {MOST_TURNS} turns")
        if self._cut.system is not None and turns[0][0] != "system":
            turns = [("system", self._cut.system), *turns]
        texts = [self._text(*turn) for turn in turns]
        marks = [chr(FIRST_MARK + number) if text else "" for number, text in enumerate(texts)]
        rendered = self._cut.render.conversation(list(zip((role for role, _ in turns), marks, strict=True)))
        if any(mark and rendered.count(mark) != 1 for mark in marks):
            raise UserError("the chat template does not write each message of this conversation once")
        return self._cut.ids(rendered, dict(zip(marks, texts, strict=True)))

    def _text(self, role: str, text: str) -> str:
        """The text of a turn; that of the user stands in the prompt template."""
        if role == "user":
            before, _, after = parse_template(self._template.prompt)
            text = f"{before}{text}{after}"
        return text.strip() if self._template.chat and self._template.chat.strip else text
