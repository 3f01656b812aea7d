"""Encode pairs as ids for training and for prompting.

Question and answer are encoded separately and their ids concatenated:

    prompt  = before + encode(question) + after
    ids     = prompt + encode(" " + answer) + [EOS]
    inputs  = ids[:-1]
    targets = ids[1:]

so the prompt has the same ids in training and in generation, for any tokenizer. For GPT-2's BPE this equals encoding
the joined string, because its pre-tokenizer always splits before the space. `before` and `after` are the special tokens
around a prompt (BOS, or those of a chat template); a question or an answer never contains one.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from qa_lm.data.pairs import Pair
from qa_lm.data.tokenizer import TextTokenizer
from qa_lm.errors import UserError, first_line
from qa_lm.templates import TemplateParts, check_templates, parse_template

TEMPLATE_FILE = "prompt_template.json"


@dataclass(frozen=True)
class ChatTurn:
    """How a chat template writes the user's turn, apart from the ids before and after it."""

    text_before: str = ""
    """Text between the last special token and the user's text. Both are encoded together."""
    text_after: str = ""
    """Text between the user's text and the next special token."""
    strip: bool = False
    """Whether white space around the user's text is removed."""
    system: str | None = None
    """Text of the system turn, whose ids are in `before`; None for what the chat template writes by itself."""

    def text(self, content: str) -> str:
        """The text around and in a turn."""
        return f"{self.text_before}{content.strip() if self.strip else content}{self.text_after}"


@dataclass(frozen=True)
class PromptTemplate:
    """Templates of prompt and answer; the default is the tutorial's `question + " " + answer`.

    Both may name further columns in braces, see `qa_lm.templates`. The reader fills the part from the first to the last
    column, which becomes the question (or answer) of a pair; only the text around it is added here.
    """

    prompt: str = "{question}"
    answer: str = " {answer}"
    before: tuple[int, ...] = ()
    """Ids before the text of every prompt: BOS, or what a chat template writes there."""
    after: tuple[int, ...] = ()
    """Ids after the text of every prompt."""
    chat: ChatTurn | None = None
    """The user's turn of a chat template; None for a plain prompt."""

    @classmethod
    def from_settings(cls, prompt: str, answer: str) -> "PromptTemplate":
        """Create a template from settings, which may write a line break as \\n.

        Raises:
            UserError: a template is invalid.
        """
        check_templates(prompt, answer)
        return cls(prompt.replace("\\n", "\n"), answer.replace("\\n", "\n"))

    @property
    def question_parts(self) -> TemplateParts:
        """The columns of a question."""
        return parse_template(self.prompt).parts

    @property
    def answer_parts(self) -> TemplateParts:
        """The columns of an answer."""
        return parse_template(self.answer).parts

    def prompt_text(self, question: str) -> str:
        """The text before the answer, without the special tokens around it."""
        before, _, after = parse_template(self.prompt)
        text = f"{before}{question}{after}"
        return self.chat.text(text) if self.chat else text

    def answer_text(self, answer: str) -> str:
        """The answer as it follows the prompt."""
        before, _, after = parse_template(self.answer)
        return f"{before}{answer}{after}"

    def answer_from(self, text: str) -> str:
        """Extract the answer from a generated text by removing the text of the template."""
        before, _, after = parse_template(self.answer)
        return text.removeprefix(before).removesuffix(after)

    def save(self, folder: Path) -> None:
        """Write the template into a model's folder."""
        (folder / TEMPLATE_FILE).write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> "PromptTemplate":
        """Read what `save` wrote.

        Raises:
            UserError: the file is missing or is not a template.
        """
        path = folder / TEMPLATE_FILE
        try:
            template = cls(**_parsed(json.loads(path.read_text(encoding="utf-8"))))
        except (OSError, ValueError, TypeError, RecursionError) as error:
            raise UserError(f"{path}: not a prompt template ({first_line(error)})") from None
        try:
            check_templates(template.prompt, template.answer)
        except UserError as error:
            raise UserError(f"{path}: {error}") from None
        return template


def _parsed(content: dict[str, Any]) -> dict[str, Any]:
    """The fields of a template, checked, because the file may come from someone else.

    Raises:
        TypeError: a field has another type; other errors if the file holds something else.
    """
    found = {"before": [], "after": [], "chat": None, **content}
    if not all(isinstance(found.get(name, ""), str) for name in ("prompt", "answer")):
        raise TypeError("prompt and answer must be text")
    for name in ("before", "after"):
        if not isinstance(found[name], list) or not all(type(each) is int and each >= 0 for each in found[name]):
            raise TypeError(f"{name} must be ids")
        found[name] = tuple(found[name])
    if found["chat"] is not None:
        found["chat"] = turn = ChatTurn(**found["chat"])
        texts = (turn.text_before, turn.text_after, turn.system or "")
        if not all(isinstance(text, str) for text in texts) or type(turn.strip) is not bool:
            raise TypeError("chat must hold texts")
    return found


class Example(NamedTuple):
    """An encoded pair: `ids` end with EOS, and the first `prompt_tokens` ids are the prompt."""

    ids: list[int]
    prompt_tokens: int

    @property
    def answer_ids(self) -> list[int]:
        """Ids of the answer, EOS included."""
        return self.ids[self.prompt_tokens :]


def encode_prompts(questions: list[str], tokenizer: TextTokenizer, template: PromptTemplate) -> list[list[int]]:
    """Encode the prompt of each question.

    Raises:
        UserError: the template holds an id that is not in the vocabulary.
    """
    if max((*template.before, *template.after), default=0) >= len(tokenizer):
        raise UserError(f"{TEMPLATE_FILE}: before and after must be ids below {len(tokenizer):,}")
    ids = tokenizer.encode([template.prompt_text(question) for question in questions])
    return [[*template.before, *each, *template.after] for each in ids]


def encode_pairs(pairs: Sequence[Pair], tokenizer: TextTokenizer, template: PromptTemplate) -> list[Example]:
    """Encode pairs, in order, EOS included."""
    prompts = encode_prompts([pair.question for pair in pairs], tokenizer, template)
    answers = tokenizer.encode([template.answer_text(pair.answer) for pair in pairs])
    return [
        Example([*prompt, *answer, tokenizer.eos_id], len(prompt))
        for prompt, answer in zip(prompts, answers, strict=True)
    ]
