"""A model that qa_lm did not train: a folder that transformers loads as a causal LM, asked by a template."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from qa_lm.data.encoding import TEMPLATE_FILE, Example, PromptTemplate
from qa_lm.data.pairs import Pair
from qa_lm.data.tokenizer import load_tokenizer
from qa_lm.errors import UserError, first_line
from qa_lm.inference.answerer import Answerer, check_vocabulary, load_causal_lm, model_folder
from qa_lm.modeling.causal_lm import packs_exactly

CHAT = "chat"
"""The template that the model's own folder brings."""


@dataclass(frozen=True)
class Prompts:
    """How questions are put to the model: by its own tokenizer, with the special tokens that this puts in front."""

    tokenizer: Any
    template: PromptTemplate | None
    """None for the template that the model's own folder brings."""

    def ids(self, question: str) -> list[int]:
        """What the model is asked with."""
        if self.template is None:
            messages = [{"role": "user", "content": question}]
            try:
                text = self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
            except Exception as error:  # the template is a program, run without access to ours
                raise UserError(f"the model's own chat template cannot be used: {first_line(error)}") from None
            found: list[int] = self.tokenizer(text, add_special_tokens=False).input_ids
            return found
        found = self.tokenizer(self.template.prompt_text(question)).input_ids
        while found and found[-1] == self.tokenizer.eos_token_id:  # some end every text
            found = found[:-1]
        return found


@dataclass(frozen=True)
class ForeignModel:
    """Such a model, ready to be asked."""

    answerer: Answerer
    prompts: Prompts
    drafts_hold: bool
    """Whether true answers may serve as drafts."""

    @classmethod
    def load(cls, folder: Path, template: str, chat_prompt: str = "{question}") -> "ForeignModel":
        """From its folder.

        Args:
            folder: the model's folder.
            template: text with {question} and other columns, or `CHAT`.
            chat_prompt: what the user says in a chat.

        Raises:
            UserError: there is no model or tokenizer, or the template cannot be used.
        """
        folder = model_folder(folder)
        if template == CHAT:
            written, around = chat_prompt, "{answer}"
        else:
            written, around = template, "{answer}" if template.endswith((" ", "\n")) else " {answer}"
        try:
            prompt = PromptTemplate.written(written, around)
        except UserError as error:
            raise UserError(f"--template {template!r}: must hold {{question}}, or be {CHAT} ({error})") from None
        try:
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        except Exception as error:  # errors of many libraries
            raise UserError(f"{folder}: the tokenizer cannot be loaded: {first_line(error)}") from None
        if template == CHAT and not tokenizer.chat_template:
            raise UserError(f"{folder}: brings no chat template; give one: --template 'Q: {{question}}\\nA:'")
        model = load_causal_lm(folder)
        text_tokenizer = load_tokenizer(folder)
        check_vocabulary(folder, model, text_tokenizer)
        prompts = Prompts(tokenizer, None if template == CHAT else prompt)
        return cls(Answerer(model, text_tokenizer, prompt), prompts, packs_exactly(model))

    def examples(self, pairs: Sequence[Pair]) -> list[Example]:
        """The pairs as ids, to be answered."""
        tokenizer, template = self.answerer.tokenizer, self.answerer.template
        answers = tokenizer.encode([template.answer_text(pair.answer) for pair in pairs])
        prompts = [self.prompts.ids(pair.question) for pair in pairs]
        return [
            Example([*prompt, *answer, tokenizer.eos_id], len(prompt))
            for prompt, answer in zip(prompts, answers, strict=True)
        ]


def is_foreign(folder: Path) -> bool:
    """Whether qa_lm did not write the model."""
    return not (model_folder(folder) / TEMPLATE_FILE).exists()
