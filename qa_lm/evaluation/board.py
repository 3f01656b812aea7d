"""The board: what was learnt, what carries over, and what copying would have scored; whether answers stop."""

import math
from collections.abc import Callable, Sequence
from typing import Any

from qa_lm.evaluation.evaluate import EvaluatedPair
from qa_lm.evaluation.metrics import Share, normalised_answer, share
from qa_lm.names import RELATIONS, WHOLE_SPLITS

WARN_BELOW = 0.99
"""Share of answers that end where they should, and probability of the end token there, below which the end of a run
warns."""


def board(evaluated: Sequence[EvaluatedPair], confidence: dict[str, Any] | None = None) -> dict[str, Any]:
    """The content of board.json.

    Args:
        evaluated: the pairs asked.
        confidence: what `qa_lm.inference.confidence` found.

    Returns:
        rows: for each split as a whole, and for the parts of those that were not trained (by their relation to the
            trained ones, and by why they are held out): split, name, n, and shares with their 95% intervals:
            exact_match, normalised_exact_match, f1, and the exact match of two baselines on the same pairs:
            nearest_question (its answer is copied) and most_common_answer.
        stopping: for each split: n, stop_rate, cut_early (answers that are a beginning of the true one), run_on
            (answers that begin with the true one and go on), eos_probability (mean probability of EOS after the true
            answer).
        confidence: as given.
        warnings: in words.
    """
    splits = {split: [pair for pair in evaluated if pair.split == split] for split in WHOLE_SPLITS}
    rows, stopping = [], []
    for split, pairs in splits.items():
        if not pairs:
            continue
        rows += [_row(split, name, part) for name, part in _parts(split, pairs) if part]
        stopping.append({"split": split, **_stopping(pairs)})
    return {"rows": rows, "stopping": stopping, "confidence": confidence, "warnings": _warnings(stopping)}


def _parts(split: str, pairs: Sequence[EvaluatedPair]) -> list[tuple[str, list[EvaluatedPair]]]:
    parts = [(WHOLE_SPLITS[split], list(pairs))]
    if split != "train":
        parts += [(name, [pair for pair in pairs if pair.relation == name]) for name in RELATIONS]
        reasons = sorted({pair.held_out for pair in pairs if pair.held_out}, reverse=True)
        parts += [(reason, [pair for pair in pairs if pair.held_out == reason]) for reason in reasons]
    return parts


def _row(split: str, name: str, pairs: list[EvaluatedPair]) -> dict[str, Any]:
    baselines = None
    if all(pair.nearest_is_right is not None for pair in pairs):
        baselines = {
            "nearest_question": _share(pairs, lambda pair: float(pair.nearest_is_right or False)),
            "most_common_answer": _share(pairs, lambda pair: float(pair.most_common_is_right or False)),
        }
    return {
        "split": split,
        "name": name,
        "n": len(pairs),
        "exact_match": _share(pairs, lambda pair: float(pair.exact_match)),
        "normalised_exact_match": _share(pairs, lambda pair: float(pair.normalised_exact_match)),
        "f1": _share(pairs, lambda pair: pair.f1),
        "baselines": baselines,
    }


def _share(pairs: list[EvaluatedPair], value: Callable[[EvaluatedPair], float]) -> dict[str, float]:
    found = share(map(value, pairs))
    assert isinstance(found, Share)
    return found._asdict()


def _stopping(pairs: list[EvaluatedPair]) -> dict[str, Any]:
    probabilities = [math.exp(pair.eos_log_probability) for pair in pairs if not math.isnan(pair.eos_log_probability)]
    return {
        "n": len(pairs),
        "stop_rate": sum(pair.stopped for pair in pairs) / len(pairs),
        "cut_early": sum(_begins(pair.answer, pair.generated) for pair in pairs),
        "run_on": sum(_begins(pair.generated, pair.answer) for pair in pairs),
        "eos_probability": sum(probabilities) / len(probabilities) if probabilities else None,
    }


def _begins(whole: str, beginning: str) -> bool:
    """Whether the text is a true beginning of the other, in the words that SQuAD's rules leave."""
    wanted, found = normalised_answer(whole).split(), normalised_answer(beginning).split()
    if not found and beginning.strip():  # marks alone are no words of the other
        return False
    return len(found) < len(wanted) and wanted[: len(found)] == found


def _warnings(stopping: list[dict[str, Any]]) -> list[str]:
    warnings = []
    for found in stopping:
        if found["stop_rate"] < WARN_BELOW:
            warnings.append(
                f"only {found['stop_rate']:.1%} of the answers to {WHOLE_SPLITS[found['split']]} end on their own; the "
                "others were cut at the length limit"
            )
        # Answers to questions that were never trained may well end elsewhere. A probability below 1 alone is no fault
        # while each answer ends in its place: greedy decoding takes the most probable token.
        misplaced = (found["cut_early"] + found["run_on"]) / found["n"]
        probability = found["eos_probability"]
        if found["split"] == "train" and misplaced > 1 - WARN_BELOW and (probability or 0) < WARN_BELOW:
            warnings.append(
                f"{misplaced:.1%} of the answers to trained pairs end too early or too late; train longer to make the "
                "model more certain where answers end"
            )
    return warnings
