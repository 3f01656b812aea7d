"""Encode pairs as ids for training and for prompting.

Question and answer are encoded separately and their ids concatenated:

    ids     = encode(question) + encode(" " + answer) + [EOS]
    inputs  = ids[:-1]
    targets = ids[1:]

so the prompt has the same ids in training and in generation, for any tokenizer. For GPT-2's BPE this equals encoding
the joined string, because its pre-tokenizer always splits before the space.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

from qa_lm.data.pairs import Pair
from qa_lm.data.tokenizer import TextTokenizer
from qa_lm.errors import UserError, first_line
from qa_lm.templates import TemplateParts, check_templates, parse_template

TEMPLATE_FILE = "prompt_template.json"


@dataclass(frozen=True)
class PromptTemplate:
    """Templates of prompt and answer; the default is the tutorial's `question + " " + answer`.

    Both may name further columns in braces, see `qa_lm.templates`. The reader fills the part from the first to the last
    column, which becomes the question (or answer) of a pair; only the text around it is added here.
    """

    prompt: str = "{question}"
    answer: str = " {answer}"

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
        """The text before the answer."""
        before, _, after = parse_template(self.prompt)
        return f"{before}{question}{after}"

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
            template = cls(**json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError, RecursionError) as error:
            raise UserError(f"{path}: not a prompt template ({first_line(error)})") from None
        if not (isinstance(template.prompt, str) and isinstance(template.answer, str)):
            raise UserError(f"{path}: not a prompt template (prompt and answer must be text)")
        try:
            check_templates(template.prompt, template.answer)
        except UserError as error:
            raise UserError(f"{path}: {error}") from None
        return template


class Example(NamedTuple):
    """An encoded pair: `ids` end with EOS, and the first `prompt_tokens` ids are the prompt."""

    ids: list[int]
    prompt_tokens: int

    @property
    def answer_ids(self) -> list[int]:
        """Ids of the answer, EOS included."""
        return self.ids[self.prompt_tokens :]


def encode_prompts(questions: list[str], tokenizer: TextTokenizer, template: PromptTemplate) -> list[list[int]]:
    """Encode the prompt of each question."""
    return tokenizer.encode([template.prompt_text(question) for question in questions])


def encode_pairs(pairs: Sequence[Pair], tokenizer: TextTokenizer, template: PromptTemplate) -> list[Example]:
    """Encode pairs, in order, EOS included."""
    prompts = encode_prompts([pair.question for pair in pairs], tokenizer, template)
    answers = tokenizer.encode([template.answer_text(pair.answer) for pair in pairs])
    return [
        Example([*prompt, *answer, tokenizer.eos_id], len(prompt))
        for prompt, answer in zip(prompts, answers, strict=True)
    ]
