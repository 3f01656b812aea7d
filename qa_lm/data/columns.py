"""Which columns hold the question, the answer and the group; from a record to a pair."""

import itertools
import json
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from qa_lm.data.pairs import Pair

# Names in use, the most explicit first; upper and lower case are the same.
RECOGNISED = (
    ("question", "answer"),
    ("question", "answers"),
    ("prompt", "completion"),
    ("instruction", "output"),
    ("q", "a"),
)
GROUP, INPUT = "group", "input"


class ColumnNames(NamedTuple):
    """Names that the user gave; None for a name to be recognised."""

    question: str | None = None
    answer: str | None = None
    group: str | None = None


class Columns(NamedTuple):
    """Names as a file has them."""

    question: str
    answer: str
    group: str
    """Records may lack it."""
    question_more: str | None = None
    """A column that continues the question where it is there and not empty: `input` beside `instruction`."""

    def in_words(self, has_group: bool, has_more: bool) -> str:
        """What is read as what, of the columns that are there."""
        question = f"{self.question} + {self.question_more}" if has_more else self.question
        group = f", group = {self.group}" if has_group else ""
        return f"question = {question}, answer = {self.answer}{group}"


def choose_columns(found: Iterable[str], wanted: ColumnNames) -> Columns:
    """The columns to read.

    Args:
        found: names that the file has.
        wanted: names that the user gave.

    Raises:
        ValueError: a wanted column is not there, or none is recognised; the message is for the user.
    """
    names = list(found)
    shown = _listed(names)
    for setting, name in zip(("data.question", "data.answer"), wanted[:2], strict=True):
        if name is not None and name not in names:
            raise ValueError(f"no column {name} ({setting}); found {shown}")
    by_lower = {name.lower(): name for name in reversed(names)}
    for question, answer in RECOGNISED:
        chosen_question = wanted.question or by_lower.get(question)
        chosen_answer = wanted.answer or by_lower.get(answer)
        if chosen_question and chosen_answer:
            more = by_lower.get(INPUT, INPUT) if chosen_question.lower() == "instruction" else None
            return Columns(chosen_question, chosen_answer, wanted.group or by_lower.get(GROUP, GROUP), more)
    missing = " and ".join(
        name for name, known in (("question", wanted.question), ("answer", wanted.answer)) if not known
    )
    raise ValueError(f"no column for the {missing}; found {shown}. Name it: data.question=... data.answer=...")


def pair_from(record: Mapping[str, object], columns: Columns) -> Pair:
    """The pair of a record.

    Raises:
        ValueError: a text is missing, empty, or no text; the message is for the user.
    """
    for column in (columns.question, columns.answer):
        if column not in record:
            raise ValueError(f"no {column}; found the keys {_listed(record)}")
    question = _text(record[columns.question], "question")
    if columns.question_more and (more := record.get(columns.question_more)):
        question = f"{question}\n{_text(more, columns.question_more)}"
    answer, *others = _answers(record[columns.answer])
    return Pair(
        question,
        answer,
        # The same text twice is one answer.
        tuple(dict.fromkeys(other for other in others if other != answer)),
        _group(record.get(columns.group)),
    )


def _group(value: object) -> str | None:
    """The name of a fact; whole numbers are names too, also as pandas writes them beside missing ones: 3.0 and nan."""
    if value is None or value != value or (isinstance(value, str) and not value.strip()):
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return _text(str(value) if isinstance(value, int) else value, "group").strip()


def _answers(value: object) -> list[str]:
    if isinstance(value, Mapping) and "text" in value:  # SQuAD's {"text": [...], "answer_start": [...]}
        value = value["text"]
    if not isinstance(value, list | tuple):
        return [_text(value, "answer")]
    if not value:
        raise ValueError("the list of answers is empty")
    return [_text(answer, "answer") for answer in value]


def _text(value: object, name: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"the {name} must be text, found {_shown(value)}")
    if not value.strip():
        raise ValueError(f"the {name} is empty")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError(f"the {name} holds half of a surrogate pair, which is no character") from None
    return value


def _listed(names: Iterable[str]) -> str:
    """Names for a message: the first dozen, each cut."""
    some = [name if len(name) <= 40 else f"{name[:37]}..." for name in map(str, itertools.islice(names, 13))]
    return ", ".join([*some[:12], "..."] if len(some) > 12 else some) or "nothing"


def _shown(value: object) -> str:
    try:
        text = json.dumps(value, ensure_ascii=True)
    except (TypeError, ValueError, RecursionError):
        text = type(value).__name__
    return text if len(text) <= 60 else f"{text[:57]}..."
