"""The trained pairs next to a model: the answers that it knows, and the questions that ask for them."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from qa_lm.errors import reading

FILE = "known_pairs.jsonl"
MAX_PAIRS = 200_000
"""Maximum number of known pairs; of more trained pairs, evenly spaced ones are kept."""


def sample_indices(count: int) -> np.ndarray:
    """Indices of the trained pairs that are kept: all, or `MAX_PAIRS` evenly spaced ones."""
    return np.unique(np.linspace(0, count - 1, min(MAX_PAIRS, count)).astype(np.int64))


@dataclass(frozen=True)
class KnownPairs:
    """Trained questions with their answers."""

    questions: Sequence[str]
    answers: Sequence[str]
    """Answer of each question."""

    @property
    def texts(self) -> list[str]:
        """Question and answer of each pair in one text."""
        return [f"{question} {answer}" for question, answer in zip(self.questions, self.answers, strict=True)]

    @cached_property
    def distinct(self) -> list[str]:
        """The distinct answers, in the order of their first question."""
        return list(dict.fromkeys(self.answers))

    @cached_property
    def numbers(self) -> dict[str, int]:
        """Index of each distinct answer."""
        return {answer: number for number, answer in enumerate(self.distinct)}

    @cached_property
    def answer_of(self) -> np.ndarray:
        """Index of the distinct answer of each pair, (pairs,), int64."""
        return np.array([self.numbers[answer] for answer in self.answers], np.int64)

    @property
    def shares_answers(self) -> bool:
        """Whether pairs have 1.5 questions per answer or more, as a list of frequently asked questions does."""
        return len(self.answers) >= SHARED * len(self.distinct)

    def save(self, folder: Path) -> None:
        """Write the pairs into a model's folder."""
        rows = zip(self.questions, self.answers, strict=True)
        lines = (json.dumps({"question": question, "answer": answer}, ensure_ascii=False) for question, answer in rows)
        (folder / FILE).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> "KnownPairs | None":
        """Read what `save` wrote; None if the file does not exist.

        Raises:
            UserError: the file is damaged.
        """
        path = folder / FILE
        if not path.exists():
            return None
        with reading(path, "is not a valid list of pairs"):
            return cls(*_columns(path.read_text(encoding="utf-8").removesuffix("\n").split("\n")))


SHARED = 1.5
"""Questions per answer from which a file counts as one whose questions share answers."""


def _columns(lines: Iterable[str]) -> tuple[list[str], list[str]]:
    questions, answers = [], []
    for line in lines:
        record = json.loads(line)
        question, answer = record["question"], record["answer"]
        if not (isinstance(question, str) and isinstance(answer, str)):
            raise TypeError("question and answer must be texts")
        f"{question}{answer}".encode()  # a lone surrogate could not be printed
        questions.append(question)
        answers.append(answer)
    return questions, answers
