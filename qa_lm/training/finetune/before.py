"""What a pretrained model answers before training, asked once and kept in the run folder."""

import time
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import PreTrainedModel

from qa_lm.data.encoding import PromptTemplate
from qa_lm.data.prepare import PreparedData
from qa_lm.data.tokenizer import TextTokenizer
from qa_lm.evaluation.before.general import GeneralAnswer, ask_general, load_general, save_general
from qa_lm.evaluation.before.known_before import KnownBefore, ask_before
from qa_lm.evaluation.before.worked_examples import EXAMPLES
from qa_lm.training.finetune.start import PretrainedStart
from qa_lm.training.finetune.trimmed import chat_prompt, compare_general

COUNTED = {"train": "training", "validation": "held-out", "test": "test"}
"""Splits, with the words for their pairs."""


@dataclass(frozen=True)
class Before:
    """What the pretrained model answered before training."""

    known: KnownBefore
    general: list[GeneralAnswer]
    tokenizer: TextTokenizer
    """Tokenizer and template with which the general questions are asked."""
    template: PromptTemplate

    def save(self, folder: Path, prepared: PreparedData) -> None:
        """Write both files into a run folder."""
        self.known.save(folder, prepared)
        save_general(self.general, folder)


def read_before(folder: Path, prepared: PreparedData, start: PretrainedStart) -> Before | None:
    """Read what `Before.save` wrote; None if a file is missing or damaged."""
    known, general = KnownBefore.load(folder, prepared), load_general(folder)
    return Before(known, general, *general_prompt(prepared, start)) if known and general else None


def general_prompt(prepared: PreparedData, start: PretrainedStart) -> tuple[TextTokenizer, PromptTemplate]:
    """Tokenizer and template for the general questions: the model's chat template if it has one that can be used, else
    those of the run."""
    folder = prepared.trim.folder if prepared.trim else start.base.folder
    return chat_prompt(folder) or (prepared.tokenizer, prepared.template)


def ask_untrained(
    model: PreTrainedModel, prepared: PreparedData, start: PretrainedStart, seed: int, device: torch.device
) -> Before:
    """Ask the pretrained model all pairs and the general questions, and print what it knows and what that cost.

    Args:
        model: the model before its first step.
        prepared: the pairs.
        start: where the model comes from.
        seed: random seed of the worked examples.
        device: where to run the model.
    """
    pairs = sum(len(getattr(prepared.split, name)) for name in COUNTED)
    print(
        f"before training: asking the untrained model all {pairs:,} pairs, with the run's prompt and after {EXAMPLES} "
        "worked examples, and general questions ...",
        flush=True,
    )
    started, training = time.perf_counter(), model.training
    model.to(device).eval()  # type: ignore[arg-type]  # transformers' own signature
    prompt = general_prompt(prepared, start)
    before = Before(ask_before(model, prepared, seed), ask_general(model, *prompt), *prompt)
    if prepared.trim:
        compare_general(before.general, prepared, start.base.folder, model.dtype, device)
    model.train(training)
    print(_known_before(before, prepared, time.perf_counter() - started), flush=True)
    return before


def _known_before(before: Before, prepared: PreparedData, seconds: float) -> str:
    sides = {words: getattr(prepared.split, name) for name, words in COUNTED.items()}
    counts = [
        f"{sum(before.known.of(side)):,} of {len(side):,} {words} pairs" for words, side in sides.items() if len(side)
    ]
    own, known = int(before.known.own_prompt.sum()), int(before.known.known.sum())
    right = sum(each.right_before for each in before.general)
    return (
        f"before training: it knows {' and '.join(counts)} ({own:,} of these {known:,} with the run's prompt alone) "
        f"and {right} of {len(before.general)} general answers; asked in {seconds:.1f} s"
    )
