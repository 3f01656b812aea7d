"""An external model, which qa_lm did not train: a transformers folder with a causal LM, prompted by a template."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from qa_lm.data.chat.prompts import with_special_tokens
from qa_lm.data.encoding import TEMPLATE_FILE, ChatTurn, Example, PromptTemplate, encode_pairs
from qa_lm.data.pairs import Pair
from qa_lm.errors import UserError
from qa_lm.inference.answerer import Answerer, check_vocabulary, load_causal_lm, model_folder
from qa_lm.modeling.causal_lm import packs_exactly

CHAT = "chat"
"""Name of the chat template in the model's own folder."""


@dataclass(frozen=True)
class ExternalModel:
    """An external model with its prompts, which begin with the special tokens that its tokenizer adds."""

    answerer: Answerer
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
        prompt_template = replace(prompt_template, chat=ChatTurn() if template == CHAT else None)
        tokenizer, prompt_template = with_special_tokens(folder, prompt_template, trained=False)
        model = load_causal_lm(folder)
        check_vocabulary(folder, model, tokenizer)
        return cls(Answerer(model, tokenizer, prompt_template), packs_exactly(model))

    def examples(self, pairs: Sequence[Pair]) -> list[Example]:
        """Encode the pairs."""
        return encode_pairs(pairs, self.answerer.tokenizer, self.answerer.template)


def is_external(folder: Path) -> bool:
    """Whether a model was not written by qa_lm."""
    return not (model_folder(folder) / TEMPLATE_FILE).exists()
