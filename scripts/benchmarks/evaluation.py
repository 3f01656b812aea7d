"""Exact match of all trained pairs: from the forward pass of the loss, by our answers with and without drafts, and by
transformers' `generate`; of a model that knows them and of one that has seen them once.

The products alone are the bound of every way that sees each token of the prompts and answers once, in float32: the
body's matrices at all of these, the head where a token of an answer comes next; no attention, no padding, no answers.
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.common import Runs, measured_by, our_run, pairs_file

COLUMNS = {"seconds": "seconds", "exact match": "exact_match", "pairs/s": "pairs_per_second"}


def compare(file: str, count: int | None, rounds: int) -> Runs:
    """Train the recipe, once to its end and once for an epoch; score the trained pairs, the ways taking turns.

    Args:
        file: a file of pairs.
        count: how many of them; None for all.
        rounds: how often each way runs.
    """
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        pairs = pairs_file(file, count, work)
        sides: Runs = {}
        common = ["experiment=recall", f"data.path={pairs}", f"data.validation_path={pairs_file(file, 50, work)}"]
        for name, more in (("knows them", []), ("one epoch", ["trainer.max_epochs=1"])):
            run = work / name.replace(" ", "_")
            our_run(run, [*common, "evaluation.max_pairs=0", *more])
            found = measured_by("evaluation", str(run), str(pairs), str(rounds))
            sides |= {f"{name}: {way}": runs for way, runs in found["sides"].items()}
    return sides


def measure(run: str, path: str, rounds: int) -> Runs:
    """The ways on one model."""
    import numpy as np
    import torch
    from torch import nn

    from qa_lm.data.batches.batching import PackedRows
    from qa_lm.data.batches.collate import Collate
    from qa_lm.data.batches.store import EncodedPairs, write_store
    from qa_lm.data.cache import cached_folder
    from qa_lm.data.readers.reading import PairReader, Reading, file_sources
    from qa_lm.evaluation.evaluate import EvalSet, evaluate_pairs
    from qa_lm.inference.answerer import Answerer
    from qa_lm.inference.scoring import POSITIONS
    from qa_lm.modeling.causal_lm import head, hidden_states, soft_cap
    from qa_lm.modeling.loss import batch_loss

    asked = Answerer.load(Path(run))
    model, tokenizer, template = asked.model.eval(), asked.tokenizer, asked.template
    pairs = [pair for _, _, pair in PairReader(file_sources(path, "pairs"), Reading()).pairs()]
    with tempfile.TemporaryDirectory() as folder:
        store = EncodedPairs(
            cached_folder(Path(folder), "store", lambda f: write_store(f, [pairs], tokenizer, template)), 10**6
        )
        examples = store.examples(np.arange(len(pairs)))

    longest = max(len(example.answer_ids) for example in examples)

    def by_forward_pass() -> float:
        everything = np.arange(len(pairs))
        row = 1 << int(store.lengths(everything).max() - 1).bit_length()
        rows = list(PackedRows(everything, store.lengths(everything), False, 0, 16, max(64, row)))
        collate, right = Collate(store, True, max(64, row)), 0
        with torch.inference_mode():
            for begin in range(0, len(rows), 16):
                batch = collate(rows[begin : begin + 16])
                hidden = hidden_states(model, batch.inputs, batch.positions)
                right += int(batch_loss(hidden, head(model), batch, False, soft_cap(model)).exact)
        return right / len(pairs)

    def by_answers(drafts: bool) -> float:
        asked = EvalSet("train", pairs, examples)
        answers = evaluate_pairs(model, tokenizer, template, asked, None, 64, longest, use_drafts=drafts)
        return statistics.mean(answer.exact_match for answer in answers)

    def by_transformers() -> float:
        right, eos = 0, tokenizer.eos_id
        order = sorted(range(len(examples)), key=lambda number: examples[number].prompt_tokens)
        generate: Any = model.generate
        for begin in range(0, len(order), 64):
            batch = [examples[number] for number in order[begin : begin + 64]]
            width = max(example.prompt_tokens for example in batch)
            pads = [width - example.prompt_tokens for example in batch]
            ids = [[eos] * pad + e.ids[: e.prompt_tokens] for pad, e in zip(pads, batch, strict=True)]
            mask = [[0] * pad + [1] * (width - pad) for pad in pads]
            with torch.inference_mode():
                found = generate(
                    torch.tensor(ids),
                    attention_mask=torch.tensor(mask),
                    max_new_tokens=longest,
                    do_sample=False,
                    eos_token_id=eos,
                    pad_token_id=eos,
                )
            for answer, example in zip(found[:, width:].tolist(), batch, strict=True):
                stopped = [*answer[: answer.index(eos)], eos] if eos in answer else answer
                right += stopped == example.answer_ids
        return right / len(pairs)

    def products() -> None:
        matrices = [module for module in model.modules() if isinstance(module, nn.Linear)]
        seen = sum(len(example.ids) - 1 for example in examples)
        asked_for = sum(len(example.answer_ids) for example in examples)
        inputs = {matrix.in_features: torch.randn(POSITIONS, matrix.in_features) for matrix in matrices}
        with torch.inference_mode():
            for matrix in matrices:
                left = asked_for if matrix is head(model) else seen
                for begin in range(0, left, POSITIONS):
                    nn.functional.linear(inputs[matrix.in_features][: left - begin], matrix.weight)

    ways: dict[str, Callable[[], float | None]] = {
        "forward pass of the loss": by_forward_pass,
        "our answers": lambda: by_answers(True),
        "our answers without drafts": lambda: by_answers(False),
        "transformers generate": by_transformers,
        "the products alone": products,
    }
    sides: Runs = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            start = time.perf_counter()
            found = way()
            seconds = time.perf_counter() - start
            measured = {"seconds": seconds, "pairs_per_second": len(pairs) / seconds}
            sides[name].append(measured if found is None else measured | {"exact_match": found})
    return sides


if __name__ == "__main__":
    import json

    print(json.dumps({"sides": measure(sys.argv[1], sys.argv[2], int(sys.argv[3]))}))
