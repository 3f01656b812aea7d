"""A trained model to ask, from the folder `model/` of a run alone."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from transformers import CONFIG_MAPPING, AutoConfig, AutoModelForCausalLM, PreTrainedModel

from qa_lm.data.encoding import PromptTemplate, encode_prompts
from qa_lm.data.tokenizer import TextTokenizer, load_tokenizer
from qa_lm.errors import UserError, first_line
from qa_lm.inference.calibration import Calibration
from qa_lm.inference.drafts import Draft
from qa_lm.inference.golden import check_golden
from qa_lm.inference.greedy import greedy_answers
from qa_lm.inference.sampling import GREEDY, Sampling, drawn_answers
from qa_lm.modeling.custom_model import register_models
from qa_lm.run import run_folder


@dataclass(frozen=True)
class Answer:
    """An answer as text."""

    question: str
    answer: str
    stopped: bool
    """Whether the model ended it with EOS; False means it was cut at the length limit."""
    tokens: int
    """Its length, EOS not counted."""
    log_probability: float
    """Mean of its tokens, EOS included, in nats."""
    probability: float | None
    """Calibrated probability that it is right; None if the model's folder has no calibration."""


@dataclass(frozen=True)
class Answerer:
    """A model with its tokenizer and prompt template."""

    model: PreTrainedModel
    tokenizer: TextTokenizer
    template: PromptTemplate
    calibration: Calibration | None = None

    @classmethod
    def load(cls, folder: Path) -> "Answerer":
        """From a run folder, or from the model folder itself.

        Raises:
            UserError: there is no such folder, no model in it, its files are damaged, or it no longer answers as it
                did when it was saved (`qa_lm.inference.golden`).
        """
        folder = model_folder(folder)
        tokenizer, template = load_tokenizer(folder), PromptTemplate.load(folder)
        model = load_causal_lm(folder)
        check_vocabulary(folder, model, tokenizer)
        check_golden(folder, model, tokenizer, template)
        return cls(model, tokenizer, template, Calibration.load(folder))

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
        eos_id = self.tokenizer.eos_id
        if sampling.temperature > 0:
            found = drawn_answers(self.model, prompts, eos_id, max_new_tokens, sampling)
        else:
            drafts = [Draft(prompt, []) for prompt in prompts]
            found = greedy_answers(self.model, drafts, eos_id, max_new_tokens, check=False)
        return [
            Answer(
                question=question,
                answer=self.template.answer_from(self.tokenizer.decode(each.ids)),
                stopped=each.stopped,
                tokens=len(each.ids),
                log_probability=each.mean_log_probability,
                probability=self.calibration.probability(each.mean_log_probability) if self.calibration else None,
            )
            for question, each in zip(questions, found, strict=True)
        ]


def model_folder(folder: Path) -> Path:
    """The folder that holds the model: `model/` of a run folder, or the folder itself.

    Raises:
        UserError: there is no such folder, or no model in it.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; give a run folder, the last line that train.py printed")
    if (folder / run_folder.MODEL).is_dir():
        folder = folder / run_folder.MODEL
    if (folder / run_folder.CONFIG).is_file():
        raise UserError(f"{folder}: this run is not finished; model/ comes at its end")
    if not (folder / "config.json").is_file():
        raise UserError(f"{folder}: holds no model; give a run folder whose training has ended")
    return folder


def check_vocabulary(folder: Path, model: PreTrainedModel, tokenizer: TextTokenizer) -> None:
    """Refuse a tokenizer with ids that the model has no embedding for.

    Raises:
        UserError: so it is.
    """
    rows = cast(nn.Embedding, model.get_input_embeddings()).weight.shape[0]
    if len(tokenizer) > rows:
        raise UserError(f"{folder}: its tokenizer has ids up to {len(tokenizer) - 1:,}, its model knows {rows:,}")


def load_causal_lm(folder: Path) -> PreTrainedModel:
    """The model of a transformers folder, in float32.

    Raises:
        UserError: its files are damaged, or are no causal language model's, or it wants code of its own to be run.
    """
    _check_model_type(folder)
    try:
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, trust_remote_code=False, dtype="float32"
        )
    except Exception as error:  # damaged files raise errors of many libraries
        raise UserError(f"{folder}: the model cannot be loaded: {first_line(error)}") from None
    _check_runs(folder, model)
    return model


def causal_lm_with(folder: Path, weights: Mapping[str, Tensor]) -> PreTrainedModel:
    """The model of a transformers folder without weights, in float32, with these.

    Raises:
        UserError: its files are damaged, it is no causal language model's, or the weights are not its own.
    """
    _check_model_type(folder)
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=torch.float32, trust_remote_code=False)
        model.load_state_dict(weights)
    except Exception as error:  # damaged files raise errors of many libraries
        raise UserError(f"{folder}: the model cannot be loaded: {first_line(error)}") from None
    _check_runs(folder, model)
    return model


def _check_runs(folder: Path, model: PreTrainedModel) -> None:
    try:
        with torch.inference_mode():
            model.eval()(input_ids=torch.zeros(1, 1, dtype=torch.long), use_cache=True)
    except Exception as error:  # a config.json that can be read need not make sense
        raise UserError(f"{folder}: the model cannot be run: {first_line(error)}") from None


def _check_model_type(folder: Path) -> None:
    """Refuse a model class that is not known here, and attention by a program of the hub
    (`"attn_implementation": "owner/name"`): transformers would fetch and run it, though no remote code is trusted."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return  # transformers says what is wrong with it
    register_models()
    model_type = config.get("model_type") if isinstance(config, dict) else None
    if isinstance(model_type, str) and model_type not in CONFIG_MAPPING:
        raise UserError(
            f"{folder / 'config.json'}: transformers has no model_type={model_type}; if it is a class of your own, "
            "name the package that defines it: --trust PACKAGE, in Python trust='PACKAGE'"
        )
    for key, value in config.items() if isinstance(config, dict) else ():
        if key.endswith("_implementation") and "/" in json.dumps(value):
            raise UserError(f"{folder / 'config.json'}: {key}={value} is code of others, which is not run")
