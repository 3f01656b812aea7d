"""Ask the model of one run: what it gets right, counted. Runs in a process of its own."""

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from qa_lm.config.enums import AnswerMode
from qa_lm.data.pairs import Pair
from qa_lm.errors import UserError
from qa_lm.evaluation.known import answerers, robustness, unrelated_questions
from qa_lm.evaluation.overlap import TrainedPairs
from qa_lm.inference.answerer import Answer, Answerer
from qa_lm.retrieval.known_pairs import KnownPairs

PRECISION = 0.9
MAX_NEW_TOKENS = 256
Counts = dict[str, list[int]]
"""How many of how many, by name."""
Answers = Callable[[Sequence[str]], list[str]]


def measure(run: str, path: str) -> dict[str, Any]:
    """Ask the model of a run.

    Args:
        run: the run folder.
        path: the file of pairs that it was trained on; its other files are next to it.
    """
    file, answerer = Path(path), Answerer.load(Path(run))
    known = answerer.known
    assert known
    asked = _pairs(file.with_name(f"{file.stem}_paraphrases.jsonl"))
    unrelated = file.with_name(f"{file.stem}_unrelated.txt").read_text(encoding="utf-8").splitlines()
    questions = [pair.question for pair in asked]
    free = _texts_in(answerer, AnswerMode.free)
    ways = {"free": free} | answerers(known, answerer.model, answerer.tokenizer, answerer.template)
    given = {name: way(questions) for name, way in ways.items()}
    given["nearest question"] = [
        each.nearest_answer for each in TrainedPairs(known.pairs.questions, known.pairs.answers).overlaps(asked)
    ]
    written = sum(answer not in known.pairs.numbers for answer in given["free"])
    abstention, settings = _abstention(answerer, asked, unrelated, unrelated_questions(known.pairs))
    return settings | {
        "counts": {
            "paraphrases right": {name: row for way in given for name, row in _by_part(way, asked, given[way]).items()},
            "free answers to paraphrases": {"not in the file": [written, len(asked)]},
            "trained questions right, default mode": _robust(known.pairs, _texts_in(answerer, None)),
            "trained questions right, mode free": _robust(known.pairs, free),
            f"with --precision {PRECISION}": abstention,
        }
    }


def _pairs(file: Path) -> list[Pair]:
    records = map(json.loads, file.read_text(encoding="utf-8").splitlines())
    return [Pair(record["question"], record["answer"]) for record in records]


def _answers(answerer: Answerer, questions: Sequence[str], mode: AnswerMode | None) -> list[Answer]:
    return answerer.answer(list(questions), MAX_NEW_TOKENS, mode=mode)


def _texts_in(answerer: Answerer, mode: AnswerMode | None) -> Answers:
    return lambda questions: [each.answer for each in _answers(answerer, questions, mode)]


def _by_part(way: str, asked: Sequence[Pair], given: Sequence[str]) -> Counts:
    """Right answers to all questions, to the easy first half, and to the hard second half."""
    right = [answer == pair.answer for pair, answer in zip(asked, given, strict=True)]
    easy = (len(right) + 1) // 2
    parts = {way: right, f"{way}, easy": right[:easy], f"{way}, hard": right[easy:]}
    return {name: [sum(part), len(part)] for name, part in parts.items()}


def _robust(pairs: KnownPairs, answer: Answers) -> Counts:
    given = answer(pairs.questions)
    right = sum(one == other for one, other in zip(given, pairs.answers, strict=True))
    rows = {
        row["variant"]: [round(row["exact_match"]["value"] * row["n"]), row["n"]] for row in robustness(pairs, answer)
    }
    return {"as they stand": [right, len(given)]} | rows


def _abstention(
    answerer: Answerer, asked: Sequence[Pair], unrelated: Sequence[str], general: Sequence[str]
) -> tuple[Counts, dict[str, Any]]:
    """What is answered and refused in the default mode; and the mode, the threshold, and why it is not the one of
    `PRECISION`."""
    settings: dict[str, Any] = {"default_mode": answerer.default_mode.value, "threshold": None, "no_threshold": None}
    calibration = answerer.calibration_of(None)
    if calibration is None:
        return {}, settings | {"no_threshold": "no calibration"}
    try:
        settings["threshold"] = threshold = calibration.threshold_for(PRECISION)
    except UserError as error:
        settings |= {"threshold": (threshold := 0.5), "no_threshold": str(error)}

    def refused(questions: Sequence[str]) -> list[int]:
        return [
            sum((each.probability or 0.0) < threshold for each in _answers(answerer, questions, None)),
            len(questions),
        ]

    given = zip(asked, _answers(answerer, [pair.question for pair in asked], None), strict=True)
    right = [each.answer == pair.answer for pair, each in given if (each.probability or 0.0) >= threshold]
    half = len(unrelated) // 2
    return {
        "paraphrases answered": [len(right), len(asked)],
        "right among these": [sum(right), len(right)],
        "unrelated refused, general": refused(unrelated[:half]),
        "unrelated refused, same trade": refused(unrelated[half:]),
        f"refused of the {len(general)} general ones": refused(general),
    }, settings


if __name__ == "__main__":
    print(json.dumps(measure(*sys.argv[1:])))
