"""Choose the columns of question, answer and group, and convert records to pairs."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

from qa_lm.data.pairs import Pair, normalise_question
from qa_lm.data.records.column_names import (
    GROUP,
    INPUT,
    by_key,
    is_question_name,
    name_key,
    recognised_pair,
)
from qa_lm.data.records.dialogues import HISTORY_COLUMN, SYSTEM_COLUMN, Turns, pairs_in
from qa_lm.data.records.values import answers_in, further_text, is_missing, listed, text_of
from qa_lm.templates import ANSWER, QUESTION, TemplateParts, fill_template, placeholders

ROLES = ("question", "answer")
LEAVE_OUT = "skip"
UNANSWERABLE = (
    "the question has no answer; data.unanswerable=skip leaves such questions out, "
    "data.unanswerable=TEXT trains TEXT as their answer"
)


SEVERAL_TURNS = (
    "a chat template is used for one question and its answer, but this dialogue has earlier turns; write them into the "
    "question: data.prompt='{history}\\n{question}', or use data.template=plain"
)
OTHER_SYSTEM = (
    "the system turn of this dialogue is not data.system; set data.system to its text, or write it into the question: "
    "data.prompt='{system}\\n{question}'"
)


class Unanswerable(Exception):
    """A record without an answer, which is skipped."""


class ColumnNames(NamedTuple):
    """Column names given by the user; None for a column to be recognised."""

    question: str | None = None
    answer: str | None = None
    group: str | None = None


@dataclass(frozen=True)
class Wanted:
    """The wanted columns."""

    columns: ColumnNames = field(default_factory=ColumnNames)
    prompt: TemplateParts = QUESTION
    """Columns of a question."""
    completion: TemplateParts = ANSWER
    """Columns of an answer."""
    unanswerable: str | None = None
    """How to treat questions without an answer: None raises an error, `LEAVE_OUT` skips them, any other text becomes
    their answer."""
    answers: bool = True
    """Whether to read answers too."""
    chat: bool = False
    """Whether a question is one turn of a chat, so that earlier turns have no place in it."""
    system: str | None = None
    """Text of the system turn that is written before each question of a chat; None if unknown."""

    @cached_property
    def is_plain(self) -> bool:
        """Whether a pair's question and answer are nothing but these."""
        return self.prompt == QUESTION and self.completion == ANSWER


@dataclass(frozen=True)
class Columns:
    """The column names of a file."""

    question: str | None
    """Column of the question; None if the templates name only other columns. The same holds for `answer`."""
    answer: str | None
    group: str
    """Column of the group, which records may lack."""
    more: str | None
    """A column that continues the question if it is present and not empty: `input`."""
    by_answer: bool
    """Whether pairs with the same answer state the same fact."""
    others: Mapping[str, str]
    """Further columns of the templates, by their names in the templates."""
    wanted: Wanted
    turns: Turns | None = None

    @cached_property
    def needed(self) -> tuple[str, ...]:
        """Columns that every record must have."""
        return tuple(name for name in (self.question, self.answer) if name is not None)

    @property
    def read(self) -> set[str]:
        """All columns that are read."""
        named = {self.group, "is_impossible", *self.others.values()}
        named |= self.turns.read if self.turns else {self.question or "", self.answer or "", self.more or ""}
        return named - {""}

    def in_words(self, found: Iterable[str]) -> str:
        """Describe which of the available columns are read, and as what."""
        found = set(found)
        if self.turns:
            words = self.turns.in_words()
        else:
            more = f" + {self.more}" if self.more in found else ""
            question = _in_words(self.wanted.prompt, "question", f"{self.question}{more}", self.others)
            answer = _in_words(self.wanted.completion, "answer", self.answer or "", self.others)
            words = f"question = {question}, answer = {answer}"
        if self.by_answer:
            return f"{words}, group = the answer's text"
        return f"{words}, group = {self.group}" if self.group in found else words


def _in_words(parts: TemplateParts, role: str, column: str, others: Mapping[str, str]) -> str:
    return " + ".join(column if name == role else others[name] for name in placeholders(parts))


def choose_columns(found: Iterable[str], wanted: Wanted, turns: Turns | None = None) -> Columns:
    """Choose the columns to read.

    Args:
        found: column names of the file.
        wanted: the wanted columns.
        turns: columns of dialogues, if the file contains any.

    Raises:
        ValueError: a wanted column is missing, or none is recognised; the message is written for the user.
    """
    names = list(found)
    if turns:
        question: str | None = "question"
        answer: str | None = "answer"
        names += [name for name in ("system", "history") if name not in names]
    else:
        question, answer = _question_and_answer(names, wanted)
    keys = by_key(names)
    others = {}
    for setting, parts, role in (("prompt", wanted.prompt, "question"), ("completion", wanted.completion, "answer")):
        for name in placeholders(parts) if wanted.answers or setting == "prompt" else ():
            if name == role:
                continue
            column = question if name == "question" else name if name in names else keys.get(name_key(name))
            if column is None:
                raise ValueError(f"no column {name} (data.{setting}); found {listed(names)}")
            others[name] = column
    group = wanted.columns.group
    by_answer = group is not None and (group == answer or (group == "answer" and group not in names))
    more = keys.get(INPUT, INPUT) if question and not turns and is_question_name(question) else None
    if more in (answer, *others.values()):
        more = None
    return Columns(question, answer, group or keys.get(GROUP, GROUP), more, by_answer, others, wanted, turns)


def _question_and_answer(names: list[str], wanted: Wanted) -> tuple[str | None, str | None]:
    """The columns of question and answer; None for one that the templates do not name."""
    given = wanted.columns
    for setting, name in zip(("data.question", "data.answer"), given[:2], strict=True):
        if name is not None and name not in names and (wanted.answers or setting == "data.question"):
            raise ValueError(f"no column {name} ({setting}); found {listed(names)}")
    named = [*placeholders(wanted.prompt), *(placeholders(wanted.completion) if wanted.answers else ())]
    found = recognised_pair(by_key(names), given.question, given.answer)
    chosen = [column if role in named else None for role, column in zip(ROLES, found, strict=True)]
    missing = [role for role, column in zip(ROLES, chosen, strict=True) if role in named and not column]
    if missing:
        advice = " ".join(f"data.{role}=..." for role in missing)
        raise ValueError(f"no column for the {' and '.join(missing)}; found {listed(names)}. Name it: {advice}")
    return chosen[0], chosen[1]


def pairs_from(record: Mapping[str, object], columns: Columns) -> list[Pair]:
    """Convert a record to pairs: one, or for a dialogue one per trained turn.

    Raises:
        ValueError: a value is missing, empty, or not a text; the message is written for the user.
        Unanswerable: the record has no answer, and such records are skipped.
    """
    if columns.turns is None:
        return [_pair(record, columns)]
    return [_pair(each, columns) for each in _dialogue_pairs(record, columns, columns.turns)]


def question_from(record: Mapping[str, object], columns: Columns) -> str:
    """The question of a record without reading its answer.

    Raises:
        ValueError: see `pairs_from`.
    """
    if columns.turns:
        *_, record = _dialogue_pairs(record, columns, columns.turns, asked=True)
    if columns.question is not None and columns.question not in record:
        raise ValueError(f"no {columns.question}; found the keys {listed(record)}")
    return _filled(columns.wanted.prompt, _texts(record, columns), "question")


def _dialogue_pairs(
    record: Mapping[str, object], columns: Columns, turns: Turns, asked: bool = False
) -> Iterator[dict[str, object]]:
    named = placeholders(columns.wanted.prompt)
    if not columns.wanted.chat:
        yield from pairs_in(record, turns, named, asked)
        return
    for each in pairs_in(record, turns, (*named, SYSTEM_COLUMN), asked):
        if each[HISTORY_COLUMN] and HISTORY_COLUMN not in named:
            raise ValueError(SEVERAL_TURNS)
        if each[SYSTEM_COLUMN] not in ("", columns.wanted.system) and SYSTEM_COLUMN not in named:
            raise ValueError(OTHER_SYSTEM)
        yield each


def _pair(record: Mapping[str, object], columns: Columns) -> Pair:
    wanted = columns.wanted
    for column in columns.needed:
        if column not in record:
            raise ValueError(f"no {column}; found the keys {listed(record)}")
    if not wanted.is_plain:
        texts = _texts(record, columns)
        question = _filled(wanted.prompt, texts, "question")
        answers = [""] if columns.answer is None else _answers(record, columns.answer, wanted)
        answers = [_filled(wanted.completion, texts | {"answer": answer}, "answer") for answer in answers]
    else:
        question = _question(record, columns)
        answers = _answers(record, columns.answer or "", wanted)
    answer = answers[0]
    # The same text twice is one answer.
    others = tuple(dict.fromkeys(other for other in answers if other != answer)) if len(answers) > 1 else ()
    if columns.by_answer:
        return Pair(question, answer, others, normalise_question(answer))
    return Pair(question, answer, others, _group(record[columns.group]) if columns.group in record else None)


def _question(record: Mapping[str, object], columns: Columns) -> str:
    question = text_of(record[columns.question or ""], "question")
    if columns.more and (more := record.get(columns.more)):
        question = f"{question}\n{text_of(more, columns.more)}"
    return question


def _texts(record: Mapping[str, object], columns: Columns) -> dict[str, str]:
    texts = {name: further_text(record.get(column), column) for name, column in columns.others.items()}
    return texts | {"question": _question(record, columns)} if columns.question in record else texts


def _filled(parts: TemplateParts, texts: Mapping[str, str], name: str) -> str:
    return text_of(fill_template(parts, texts), name)


def _answers(record: Mapping[str, object], column: str, wanted: Wanted) -> list[str]:
    value = record[column]
    if "is_impossible" in record and record["is_impossible"] is True:
        value = []
    if isinstance(value, str):  # nearly always
        return [text_of(value, "answer")]
    if found := answers_in(value):
        return [text_of(answer, "answer") for answer in found]
    if wanted.unanswerable is None:
        raise ValueError(UNANSWERABLE)
    if wanted.unanswerable == LEAVE_OUT:
        raise Unanswerable
    return [wanted.unanswerable]


def _group(value: object) -> str | None:
    """The id of a group; an integer may be written as 3.0, as pandas does in columns with missing values."""
    if is_missing(value) or (isinstance(value, str) and not value.strip()):
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return text_of(value, "group").strip()
