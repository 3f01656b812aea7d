"""The scoreboard: recall, generalisation, copying baselines, and whether answers end where they should."""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from qa_lm.evaluation.evaluate import EvaluatedPair
from qa_lm.evaluation.metrics import Share, normalise_answer, share
from qa_lm.names import OVERLAPS, WHOLE_SPLITS

WARN_BELOW = 0.99
"""A run warns if a smaller share of the answers end where they should, or if EOS there has a lower probability."""


def board(
    evaluated: Sequence[EvaluatedPair],
    confidence: dict[str, Any] | None = None,
    known_answers: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """The content of board.json.

    Args:
        evaluated: the evaluated pairs.
        confidence: the result of `qa_lm.evaluation.calibrate.board_entry`.
        known_answers: the result of `qa_lm.evaluation.known.known_board`.

    Returns:
        rows: for each split as a whole, and for subsets of the splits that were not trained (by overlap with the
            trained pairs, and by the reason for being held out): split, name, n, and scores with 95% intervals:
            exact_match, normalised_exact_match, f1, and the exact match of two baselines on the same pairs:
            nearest_question (copies its answer) and most_common_answer. For a pretrained start also `before`: the share
            that the untrained model knew, and how many are known_and_kept, known_and_lost, taught (not known before,
            right now) and not_learnt.
        stopping: for each split: n, stop_rate, cut_early (answers that are a proper prefix of the true one), run_on
            (answers of which the true one is a proper prefix), eos_probability (mean probability of EOS after the true
            answer).
        confidence, known_answers: the arguments; the latter only where it is given.
        warnings: messages for the user.
    """
    splits = {split: [pair for pair in evaluated if pair.split == split] for split in WHOLE_SPLITS}
    rows, stopping = [], []
    for split, pairs in splits.items():
        if not pairs:
            continue
        rows += [_row(split, name, part) for name, part in _parts(split, pairs) if part]
        stopping.append({"split": split, **_stopping(pairs)})
    found = {"rows": rows, "stopping": stopping, "confidence": confidence, "warnings": _warnings(stopping)}
    return found if known_answers is None else found | {"known_answers": known_answers}


def _parts(split: str, pairs: Sequence[EvaluatedPair]) -> list[tuple[str, list[EvaluatedPair]]]:
    parts = [(WHOLE_SPLITS[split], list(pairs))]
    if split != "train":
        parts += [(name, [pair for pair in pairs if pair.relation == name]) for name in OVERLAPS]
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
    row = {
        "split": split,
        "name": name,
        "n": len(pairs),
        "exact_match": _share(pairs, lambda pair: float(pair.exact_match)),
        "normalised_exact_match": _share(pairs, lambda pair: float(pair.normalised_exact_match)),
        "f1": _share(pairs, lambda pair: pair.f1),
        "baselines": baselines,
    }
    known = [pair.known_before for pair in pairs]
    return row if None in known else row | {"before": _before(pairs)}


def _before(pairs: list[EvaluatedPair]) -> dict[str, Any]:
    kinds = Counter((pair.known_before, pair.exact_match) for pair in pairs)
    return {
        "untrained_model": _share(pairs, lambda pair: float(pair.known_before or False)),
        "known_and_kept": kinds[True, True],
        "known_and_lost": kinds[True, False],
        "taught": kinds[False, True],
        "not_learnt": kinds[False, False],
    }


def _share(pairs: list[EvaluatedPair], value: Callable[[EvaluatedPair], float]) -> dict[str, float]:
    mean = share(map(value, pairs))
    assert isinstance(mean, Share)
    return mean._asdict()


def _stopping(pairs: list[EvaluatedPair]) -> dict[str, Any]:
    probabilities = [math.exp(pair.eos_log_probability) for pair in pairs if not math.isnan(pair.eos_log_probability)]
    return {
        "n": len(pairs),
        "stop_rate": sum(pair.stopped for pair in pairs) / len(pairs),
        "cut_early": sum(_is_prefix(pair.generated, of=pair.answer) for pair in pairs),
        "run_on": sum(_is_prefix(pair.answer, of=pair.generated) for pair in pairs),
        "eos_probability": sum(probabilities) / len(probabilities) if probabilities else None,
    }


def _is_prefix(text: str, of: str) -> bool:
    """Whether a text is a proper prefix of the other, in words normalised by SQuAD's rules."""
    words, other = normalise_answer(text).split(), normalise_answer(of).split()
    if not words and text.strip():  # punctuation alone is not a prefix
        return False
    return len(words) < len(other) and other[: len(words)] == words


def _warnings(stopping: list[dict[str, Any]]) -> list[str]:
    warnings = []
    for row in stopping:
        if row["stop_rate"] < WARN_BELOW:
            warnings.append(
                f"only {row['stop_rate']:.1%} of the answers to {WHOLE_SPLITS[row['split']]} end on their own; the "
                "others were cut at the length limit"
            )
        # Answers to untrained questions may legitimately end elsewhere. A probability below 1 alone is not a problem if
        # each answer ends in the right place: greedy decoding takes the most probable token.
        misplaced = (row["cut_early"] + row["run_on"]) / row["n"]
        probability = row["eos_probability"]
        if row["split"] == "train" and misplaced > 1 - WARN_BELOW and (probability or 0) < WARN_BELOW:
            warnings.append(
                f"{misplaced:.1%} of the answers to trained pairs end too early or too late; train longer to make the "
                "model more certain where answers end"
            )
    return warnings
