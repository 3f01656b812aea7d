"""A trained model that answers questions, loaded from the folder `model/` of a run."""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import CONFIG_MAPPING, AutoConfig, AutoModelForCausalLM, PreTrainedModel

from qa_lm.config.enums import AnswerMode
from qa_lm.data.encoding import PromptTemplate, encode_prompts
from qa_lm.data.tokenizer import TextTokenizer, load_tokenizer
from qa_lm.errors import UserError, first_line
from qa_lm.inference.calibration import Calibration
from qa_lm.inference.drafts import Draft
from qa_lm.inference.golden import check_golden
from qa_lm.inference.greedy import Watch, greedy_answers
from qa_lm.inference.known_answers import KnownAnswers
from qa_lm.inference.sampling import GREEDY, Continuation, Sampling, sample_answers
from qa_lm.modeling.causal_lm import context_of
from qa_lm.modeling.custom_model import register_models
from qa_lm.run import run_folder

GENERATION_LOG = logging.getLogger("transformers.generation.configuration_utils")


@dataclass(frozen=True)
class Answer:
    """An answer of the model."""

    question: str
    answer: str
    stopped: bool
    """Whether the model ended the answer with EOS; if not, it was cut at the length limit."""
    tokens: int
    """Length of the answer in tokens, without EOS."""
    log_probability: float | None
    """Mean log-probability of the tokens (EOS included), in nats; None in the modes `nearest` and `best`."""
    probability: float | None
    """Calibrated probability that the answer is right; None if the model's folder has no calibration for the mode."""
    mode: str = AnswerMode.free.value
    """How the question was answered."""
    in_file: bool | None = None
    """Whether the answer is one of the known answers; None if these are not known."""


@dataclass(frozen=True)
class Answerer:
    """A model with its tokenizer and prompt template."""

    model: PreTrainedModel
    tokenizer: TextTokenizer
    template: PromptTemplate
    calibration: Calibration | None = None
    known: KnownAnswers | None = None

    @property
    def default_mode(self) -> AnswerMode:
        """How questions are answered unless asked otherwise."""
        return self.known.default_mode if self.known else AnswerMode.free

    def calibration_of(self, mode: AnswerMode | None) -> Calibration | None:
        """The calibration of the probabilities of a mode; None if it has none."""
        match mode or self.default_mode:
            case AnswerMode.free:
                return self.calibration
            case AnswerMode.best:
                return self.known.calibration if self.known else None
        return None

    @classmethod
    def load(cls, folder: Path) -> "Answerer":
        """Load a model from a run folder, or from the model folder itself.

        Raises:
            UserError: the folder does not exist, contains no model, its files are damaged, or the model no longer
                answers as it did when it was saved (`qa_lm.inference.golden`).
        """
        folder = model_folder(folder)
        tokenizer, template = load_tokenizer(folder), PromptTemplate.load(folder)
        model = load_causal_lm(folder)
        check_vocabulary(folder, model, tokenizer)
        check_golden(folder, model, tokenizer, template)
        return cls(model, tokenizer, template, Calibration.load(folder), KnownAnswers.load(folder, model, tokenizer))

    def prepare(self, mode: AnswerMode) -> None:
        """Load what a mode needs.

        Raises:
            UserError: the model's folder has no known pairs for this mode, or its encoder cannot be loaded.
        """
        if mode is AnswerMode.free:
            return
        if self.known is None:
            raise UserError(
                f"mode {mode.value}: this model's folder holds no known pairs; train again, or use mode free"
            )
        if self.known.encoder and mode is not AnswerMode.known:
            self.known.encoder.load()

    def answer(
        self,
        questions: list[str],
        max_new_tokens: int,
        sampling: Sampling = GREEDY,
        mode: AnswerMode | None = None,
    ) -> list[Answer]:
        """Answer each question, in order.

        Args:
            questions: the questions.
            max_new_tokens: maximum length of an answer that the model writes.
            sampling: how the model chooses tokens.
            mode: how to answer; None for the model's default, and for `free` with sampling.

        Raises:
            UserError: a question is empty, or as long as the model's context; or see `prepare`.
        """
        mode = mode or (self.default_mode if sampling == GREEDY else AnswerMode.free)
        self.prepare(mode)
        prompts = self.prompts(questions)
        if self.known and mode is not AnswerMode.free:
            return self._known(self.known, questions, mode)
        return self.written(questions, self.continuations(prompts, max_new_tokens, sampling))

    def prompts(self, questions: list[str]) -> list[list[int]]:
        """Encode the prompt of each question.

        Raises:
            UserError: a question is empty, or its prompt is as long as the model's context.
        """
        prompts = encode_prompts(questions, self.tokenizer, self.template)
        context = context_of(self.model)
        for number, (question, prompt) in enumerate(zip(questions, prompts, strict=True), start=1):
            if not question.strip():
                raise UserError(f"question {number} is empty")
            if len(prompt) >= context:
                raise UserError(
                    f"question {number} has {len(prompt)} tokens; this model's context is {context}, answer included"
                )
        return prompts

    def continuations(
        self,
        prompts: list[list[int]],
        max_new_tokens: int | Sequence[int],
        sampling: Sampling = GREEDY,
        watch: Watch | None = None,
    ) -> list[Continuation]:
        """Continue each prompt, in order.

        Args:
            prompts: ids, each of at least one token and shorter than the model's context.
            max_new_tokens: maximum length of a continuation, or for greedy ones that of each.
            sampling: how the model chooses tokens.
            watch: sees each greedy token, see `qa_lm.inference.greedy.Watch`.
        """
        eos_id = self.tokenizer.eos_id
        if sampling.temperature > 0:
            assert isinstance(max_new_tokens, int)
            return sample_answers(self.model, prompts, eos_id, max_new_tokens, sampling)
        drafts = [Draft(prompt, []) for prompt in prompts]
        return greedy_answers(self.model, drafts, eos_id, max_new_tokens, check=False, watch=watch)

    def written(self, questions: Sequence[str], continuations: Sequence[Continuation]) -> list[Answer]:
        """The answers that the model wrote to the questions, as continuations of their prompts."""
        known = self.known.pairs.numbers if self.known else None
        found = [self._written(question, each) for question, each in zip(questions, continuations, strict=True)]
        return [replace(each, in_file=None if known is None else each.answer in known) for each in found]

    def _written(self, question: str, continuation: Continuation) -> Answer:
        likelihood = continuation.mean_log_probability
        return Answer(
            question=question,
            answer=self.template.answer_from(self.tokenizer.decode(continuation.ids)),
            stopped=continuation.stopped,
            tokens=len(continuation.ids),
            log_probability=likelihood,
            probability=self.calibration.probability(likelihood) if self.calibration else None,
        )

    def _known(self, known: KnownAnswers, questions: list[str], mode: AnswerMode) -> list[Answer]:
        found: list[tuple[str, float | None, float | None]]
        if mode is AnswerMode.known:
            likely = known.most_likely(questions, self.model, self.tokenizer, self.template)
            found = [(answer, log_probability, None) for answer, log_probability in likely]
        else:
            found = [(each.answer, None, each.probability) for each in known.matches(questions, mode)]
        ids = self.tokenizer.encode([self.template.answer_text(answer) for answer, *_ in found])
        return [
            Answer(question, answer, True, len(tokens), log_probability, probability, mode.value, True)
            for question, tokens, (answer, log_probability, probability) in zip(questions, ids, found, strict=True)
        ]


def model_folder(folder: Path) -> Path:
    """The folder of the model: `model/` of a run folder, or the folder itself.

    Raises:
        UserError: the folder does not exist, or contains no model.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; give the run folder that train.py printed last")
    if (folder / run_folder.MODEL).is_dir():
        folder = folder / run_folder.MODEL
    if (folder / run_folder.CONFIG).is_file():
        raise UserError(f"{folder}: this run is not finished; model/ is written at the end")
    if not (folder / "config.json").is_file():
        raise UserError(f"{folder}: contains no model; give the folder of a finished run")
    return folder


def check_vocabulary(folder: Path, model: PreTrainedModel, tokenizer: TextTokenizer) -> None:
    """Check that the model has an embedding for every id of the tokenizer.

    Raises:
        UserError: the tokenizer has higher ids.
    """
    rows = cast(nn.Embedding, model.get_input_embeddings()).weight.shape[0]
    if len(tokenizer) > rows:
        raise UserError(
            f"{folder}: the tokenizer has ids up to {len(tokenizer) - 1:,}, but the model has {rows:,} embeddings"
        )


def load_causal_lm(folder: Path, dtype: torch.dtype = torch.float32, **settings: Any) -> PreTrainedModel:
    """Load the model of a transformers folder.

    Args:
        folder: the folder.
        dtype: dtype of the weights in memory.
        settings: arguments of its config to replace.

    Raises:
        UserError: the files are damaged, contain no causal language model, lack weights, or name third-party code.
    """
    _check_model_type(folder)
    options = {"local_files_only": True, "use_safetensors": True, "trust_remote_code": False}
    GENERATION_LOG.setLevel(logging.ERROR)  # model/ has settings for other tools, of which transformers warns
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            folder, dtype=dtype, output_loading_info=True, **options, **settings
        )
    except Exception as error:  # damaged files raise errors of many libraries
        raise UserError(f"{folder}: the model cannot be loaded: {first_line(error)}") from None
    finally:
        GENERATION_LOG.setLevel(logging.NOTSET)
    model: PreTrainedModel = loaded[0]
    if missing := sorted(loaded[1]["missing_keys"]):
        raise UserError(f"{folder}: the model cannot be loaded: its weights lack {missing[0]}")
    _check_runs(folder, model)
    return model


def causal_lm_from_weights(folder: Path, weights: Mapping[str, Tensor]) -> PreTrainedModel:
    """Build the model that a transformers folder describes, in float32, and load these weights into it.

    Raises:
        UserError: the files are damaged, describe no causal language model, or do not match the weights.
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
    except Exception as error:  # a readable config.json may still be wrong
        raise UserError(f"{folder}: the model cannot be run: {first_line(error)}") from None


def _check_model_type(folder: Path) -> None:
    """Refuse unknown model classes, and attention kernels from the hub (`"attn_implementation": "owner/name"`), which
    transformers would download and run even without `trust_remote_code`."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return  # transformers reports what is wrong with it
    register_models()
    model_type = config.get("model_type") if isinstance(config, dict) else None
    if isinstance(model_type, str) and model_type not in CONFIG_MAPPING:
        raise UserError(
            f"{folder / 'config.json'}: transformers has no model_type={model_type}; if it is a class of your own, "
            "name the package that defines it: --trust PACKAGE, in Python trust='PACKAGE'"
        )
    for key, value in config.items() if isinstance(config, dict) else ():
        if key.endswith("_implementation") and "/" in json.dumps(value):
            raise UserError(f"{folder / 'config.json'}: {key}={value} is refused: it would run third-party code")
