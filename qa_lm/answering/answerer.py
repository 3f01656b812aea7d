"""A trained model to ask, from the folder `model/` of a run alone."""

from dataclasses import dataclass
from pathlib import Path

from transformers import AutoModelForCausalLM, PreTrainedModel

from qa_lm.answering.generate import GREEDY, Sampling, generate
from qa_lm.data.encoding import PromptTemplate, encode_prompts
from qa_lm.data.tokenizer import TextTokenizer, load_tokenizer
from qa_lm.errors import UserError, first_line


@dataclass(frozen=True)
class Answer:
    """An answer as text."""

    question: str
    answer: str
    stopped: bool
    """Whether the model ended it with EOS; False means it was cut at the length limit."""
    tokens: int
    """Its length, EOS not counted."""


@dataclass(frozen=True)
class Answerer:
    """A model with its tokenizer and prompt template."""

    model: PreTrainedModel
    tokenizer: TextTokenizer
    template: PromptTemplate

    @classmethod
    def load(cls, folder: Path) -> "Answerer":
        """From a run folder, or from the model folder itself.

        Raises:
            UserError: there is no such folder, no model in it, or its files are damaged.
        """
        if not folder.is_dir():
            raise UserError(f"{folder}: no such folder; give a run folder, the last line that train.py printed")
        if (folder / "model").is_dir():
            folder = folder / "model"
        if not (folder / "config.json").is_file():
            raise UserError(f"{folder}: holds no model; give a run folder whose training has ended")
        tokenizer, template = load_tokenizer(folder), PromptTemplate.load(folder)
        try:
            model = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True, use_safetensors=True)
        except Exception as error:  # damaged files raise errors of many libraries
            raise UserError(f"{folder}: the model cannot be loaded: {first_line(error)}") from None
        return cls(model, tokenizer, template)

    def answer(self, questions: list[str], max_new_tokens: int, sampling: Sampling = GREEDY) -> list[Answer]:
        """An answer to each question, in order.

        Raises:
            UserError: a question is empty, or fills the model's context.
        """
        prompts = encode_prompts(questions, self.tokenizer, self.template)
        context = self.model.config.max_position_embeddings
        for number, (question, prompt) in enumerate(zip(questions, prompts, strict=True), start=1):
            if not question.strip():
                raise UserError(f"question {number} is empty")
            if len(prompt) >= context:
                raise UserError(
                    f"question {number} has {len(prompt)} tokens; this model sees {context}, its answer included"
                )
        continuations = generate(self.model, prompts, self.tokenizer.eos_id, max_new_tokens, sampling=sampling)
        return [
            Answer(question, self.template.answer_from(self.tokenizer.decode(found.ids)), found.stopped, len(found.ids))
            for question, found in zip(questions, continuations, strict=True)
        ]
