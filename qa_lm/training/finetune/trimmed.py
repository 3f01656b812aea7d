"""A pretrained model with a trimmed vocabulary, and the proof that it computes what the whole model computes.

Logits of the kept tokens are compared on training pairs when the model is loaded. Before training the whole model is
also asked the general questions, whose texts did not choose the vocabulary.
"""

from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedModel

from qa_lm.data.chat.prompts import with_special_tokens
from qa_lm.data.encoding import ChatTurn, PromptTemplate
from qa_lm.data.prepare import PreparedData
from qa_lm.data.tokenizer import TextTokenizer
from qa_lm.data.vocabulary.rows import PROOF, keep_rows, parameters_before
from qa_lm.data.vocabulary.trim import Trim
from qa_lm.data.vocabulary.trimming import KEY
from qa_lm.errors import UserError
from qa_lm.evaluation.before.general import GeneralAnswer, ask_general
from qa_lm.inference.answerer import load_causal_lm
from qa_lm.modeling.causal_lm import parameter_count, same_logits
from qa_lm.run import run_folder
from qa_lm.training.hardware import free_memory

COMPARED = 16
"""Number of training pairs whose logits are compared."""
TOLERANCE = 1e-4
"""Largest difference of logits in float32, and its share of a logit."""


def load_base(folder: Path, prepared: PreparedData) -> PreTrainedModel:
    """Load the pretrained model of a run in float32, with the vocabulary of the run."""
    model = load_causal_lm(folder)
    if prepared.trim:
        keep_rows(model, prepared.trim.old_ids)
    return model


def trim_model(model: PreTrainedModel, prepared: PreparedData) -> None:
    """Trim the vocabulary of a model, in place, and compare the logits of the kept tokens on training pairs.

    Args:
        model: the whole model, in eval mode.
        prepared: the pairs, with the trimmed tokenizer.

    Raises:
        UserError: the model depends on its vocabulary in another way, so the logits differ.
    """
    trim = prepared.trim
    assert trim is not None
    examples = prepared.examples.examples(prepared.split.train[:COMPARED])
    before = _logits(model, [[trim.old_ids[each] for each in example.ids] for example in examples], trim.old_ids)
    parameters = parameter_count(model)
    keep_rows(model, trim.old_ids)
    after = _logits(model, [example.ids for example in examples])
    difference = max(float((one - other).abs().max()) for one, other in zip(before, after, strict=True))
    same = (same_logits(one, other, model.dtype, TOLERANCE) for one, other in zip(after, before, strict=True))
    if not all(same):
        raise UserError(f"{KEY}: this model cannot be trimmed: its logits change by up to {difference:.1e}", KEY)
    trim.proof["parameters"] = [parameters, parameter_count(model)]
    trim.proof.update({"texts_with_compared_logits": len(examples), "largest_difference_of_logits": difference})


@torch.inference_mode()
def _logits(model: PreTrainedModel, texts: list[list[int]], rows: list[int] | None = None) -> list[Tensor]:
    """The logits of each text, those of these tokens only, (time, tokens)."""
    found = [model(input_ids=torch.tensor([ids]), use_cache=False).logits[0].float() for ids in texts]
    return found if rows is None else [each[:, rows] for each in found]


def check_adapter(model: PreTrainedModel, prepared: PreparedData) -> None:
    """Refuse an adapter whose matrices have a row for each token: it would fit the trimmed model only.

    Raises:
        UserError: it adapts the embedding or the head.
    """
    adapted = (model.get_input_embeddings(), model.get_output_embeddings())
    if prepared.trim and any(hasattr(each, "lora_A") for each in adapted):
        key = "finetune.target_modules"
        raise UserError(f"{key}: cannot name the embedding or the head with {KEY}, since they lose rows", key)


def chat_prompt(folder: Path) -> tuple[TextTokenizer, PromptTemplate] | None:
    """Tokenizer and template by which the chat template of a folder asks; None if it has none that can be used."""
    try:
        return with_special_tokens(folder, PromptTemplate("{question}", "{answer}", chat=ChatTurn()))
    except UserError:
        return None


def compare_general(
    answers: list[GeneralAnswer], prepared: PreparedData, base: Path, dtype: torch.dtype, device: torch.device
) -> None:
    """Ask the whole model the general questions, and count the answers that the trimmed one gives too.

    A model for which there is no memory besides the trimmed one is not asked.

    Args:
        answers: the answers of the trimmed model before training.
        prepared: the pairs, with the trimmed tokenizer.
        base: folder of the whole model.
        dtype: dtype of its weights.
        device: where to run it.
    """
    trim = prepared.trim
    assert trim is not None
    if trim.proof["parameters"][0] * dtype.itemsize > free_memory(device):
        print("trimmed vocabulary: no memory to compare general answers with those of the whole model", flush=True)
        return
    whole = load_causal_lm(base, dtype).to(device)  # type: ignore[arg-type]  # transformers' own signature
    prompt = chat_prompt(base) or with_special_tokens(base, prepared.template)
    before = ask_general(whole, *prompt)
    same = sum(one.before == other.before for one, other in zip(before, answers, strict=True))
    trim.proof.update({"general_questions": len(answers), "general_answers_as_before_trimming": same})
    print(
        f"trimmed vocabulary: logits differ by at most {trim.proof['largest_difference_of_logits']:.1e}; "
        f"{same} of {len(answers)} general answers are those of the whole vocabulary",
        flush=True,
    )


def trim_line(trim: Trim, model: PreTrainedModel) -> str:
    """What trimming did to a tokenizer and a model, as a part of a line for the user."""
    tokens = trim.proof["tokens"][0]
    sizes = trim.proof.setdefault("parameters", [parameters_before(model, tokens), parameter_count(model)])
    before, after = (each / 1e6 for each in sizes)
    return f"{trim}; parameters {before:,.1f} -> {after:,.1f} million"


def copy_proof(run: Path) -> None:
    """Write what was proved before training next to the finished model."""
    path = run / run_folder.CHECKPOINTS / run_folder.MODEL / PROOF
    if path.is_file():
        (run / run_folder.MODEL / PROOF).write_bytes(path.read_bytes())
