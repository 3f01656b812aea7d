"""An external model, which qa_lm did not train: a transformers folder with a causal LM, prompted by a template."""

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
"""Name of the chat template in the model's own folder."""


@dataclass(frozen=True)
class Prompts:
    """Encodes questions with the model's own tokenizer, including the special tokens that it adds in front."""

    tokenizer: Any
    template: PromptTemplate | None
    """None for the chat template in the model's own folder."""

    def ids(self, question: str) -> list[int]:
        """The ids of the prompt for a question."""
        if self.template is None:
            messages = [{"role": "user", "content": question}]
            try:
                text = self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
            except Exception as error:  # the template is a program, which runs in a sandbox
                raise UserError(f"the model's own chat template cannot be used: {first_line(error)}") from None
            ids: list[int] = self.tokenizer(text, add_special_tokens=False).input_ids
            return ids
        ids = self.tokenizer(self.template.prompt_text(question)).input_ids
        while ids and ids[-1] == self.tokenizer.eos_token_id:  # some tokenizers append EOS to every text
            ids = ids[:-1]
        return ids


@dataclass(frozen=True)
class ExternalModel:
    """An external model with its prompts."""

    answerer: Answerer
    prompts: Prompts
    use_drafts: bool
    """Whether the true answers can be used as drafts, see `qa_lm.modeling.causal_lm.packs_exactly`."""

    @classmethod
    def load(cls, folder: Path, template: str, chat_prompt: str = "{question}") -> "ExternalModel":
        """Load a model from its folder.

        Args:
            folder: the model's folder.
            template: text with {question} and other columns, or `CHAT`.
            chat_prompt: template of the user's message, for `CHAT`.

        Raises:
            UserError: the model or the tokenizer cannot be loaded, or the template is invalid.
        """
        folder = model_folder(folder)
        if template == CHAT:
            prompt, completion = chat_prompt, "{answer}"
        else:
            prompt, completion = template, "{answer}" if template.endswith((" ", "\n")) else " {answer}"
        try:
            prompt_template = PromptTemplate.from_settings(prompt, completion)
        except UserError as error:
            raise UserError(f"--template {template!r}: must contain {{question}}, or be {CHAT} ({error})") from None
        try:
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        except Exception as error:  # errors of many libraries
            raise UserError(f"{folder}: the tokenizer cannot be loaded: {first_line(error)}") from None
        if template == CHAT and not tokenizer.chat_template:
            raise UserError(f"{folder}: has no chat template; give a template: --template 'Q: {{question}}\\nA:'")
        model = load_causal_lm(folder)
        text_tokenizer = load_tokenizer(folder)
        check_vocabulary(folder, model, text_tokenizer)
        prompts = Prompts(tokenizer, None if template == CHAT else prompt_template)
        return cls(Answerer(model, text_tokenizer, prompt_template), prompts, packs_exactly(model))

    def examples(self, pairs: Sequence[Pair]) -> list[Example]:
        """Encode the pairs."""
        tokenizer, template = self.answerer.tokenizer, self.answerer.template
        answers = tokenizer.encode([template.answer_text(pair.answer) for pair in pairs])
        prompts = [self.prompts.ids(pair.question) for pair in pairs]
        return [
            Example([*prompt, *answer, tokenizer.eos_id], len(prompt))
            for prompt, answer in zip(prompts, answers, strict=True)
        ]


def is_external(folder: Path) -> bool:
    """Whether a model was not written by qa_lm."""
    return not (model_folder(folder) / TEMPLATE_FILE).exists()
