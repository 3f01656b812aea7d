"""A vocabulary cut to the trained pairs (`tokenizer.trim`): what it saves, and what it costs on held-out pairs.

A pretrained model with the settings of `experiment=finetune`, one epoch, and GPT-2 small from scratch with those of
`experiment=recall` and GPT-2's vocabulary, each with the whole vocabulary, and with 0 and 8,192 first merges kept
besides the tokens of the pairs. The sides take turns. Held-out answers are compared by exact match and by bits per
byte, which do not depend on the vocabulary.
"""

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.common import Runs, our_run, shown
from benchmarks.finetune.comparison import parts
from qa_lm.data.vocabulary.rows import PROOF
from qa_lm.run.run_folder import MODEL

MERGES = (None, 0, 8192)
COLUMNS = {
    "tokens": "vocabulary",
    "parameters, M": "millions",
    "tokens/s": "tokens_per_second",
    "training, s": "train_seconds",
    "peak, MiB": "peak_mib",
    "length held out": "length",
    "recall": "recall",
    "held out": "held_out",
    "bits/byte": "bits_per_byte",
    "general same": "general",
}


def compare(file: str, model: str | None, counts: tuple[int, int], rounds: int, epochs: int) -> Runs:
    """Every side on the first pairs of a file, taking turns.

    Args:
        file: a file of pairs.
        model: a pretrained model; None for the runs from scratch alone.
        counts: how many pairs are trained, and how many of those after them are held out.
        rounds: how often each side runs.
        epochs: epochs of the runs from scratch.
    """
    pretrained = ["experiment=finetune", f"model.path={model}", "trainer.max_epochs=1", "finetune.average=1"]
    scratch = ["experiment=recall", "tokenizer=gpt2", "model=small", f"trainer.max_epochs={epochs}", "data.augment=0"]
    starts = {"GPT-2 small": scratch} if model is None else {"pretrained": pretrained, "GPT-2 small": scratch}
    sides: Runs = {}
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        train, held_out = parts(file, counts, work)
        files = [f"data.path={train}", f"data.validation_path={held_out}"]
        for number in range(rounds):
            for name, settings in starts.items():
                for merges in MERGES:
                    trim = "whole" if merges is None else f"trim={merges:,}"
                    given = [*files, *settings, f"tokenizer.trim={'null' if merges is None else merges}"]
                    run = work / f"{len(sides)}-{number}"
                    sides.setdefault(f"{name}, {trim}", []).append(_measured(run, [*given, f"seed={number}"]))
                    shutil.rmtree(run)
    return sides


def _measured(folder: Path, overrides: list[str]) -> dict[str, Any]:
    metrics = our_run(folder, [*overrides, "checkpoint.every_seconds=null", "loggers=[]", "ledger=false"])
    path = folder / MODEL / PROOF
    proof = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    config = json.loads((folder / MODEL / "config.json").read_text(encoding="utf-8"))
    before, after = proof.get("held_out_tokens", (1, 1))
    found = {
        "vocabulary": config["vocab_size"],
        "millions": metrics["parameters"] / 1e6,
        "tokens_per_second": metrics["tokens_per_second"],
        "train_seconds": metrics["train_seconds"],
        "peak_mib": metrics["peak_memory"] / 2**20,
        "length": after / before,
        "recall": metrics["final_train_recall"],
        "held_out": metrics["val_exact_match"],
        "bits_per_byte": metrics["final_val_bits_per_answer_byte"],
        "general": proof.get("general_answers_as_before_trimming"),
        "proof": {name: value for name, value in proof.items() if name != "old_ids"},
    }
    return shown("ours", found)
