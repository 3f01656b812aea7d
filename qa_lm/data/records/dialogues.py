"""Convert dialogues, which are lists of turns with a role and a text, to pairs.

Supported formats are OpenAI's chat format (`messages` of `role` and `content`), ShareGPT's (`conversations` of `from`
and `value`) and TRL's conversational formats (turns in `prompt` and `completion`, or in `chosen`). Each turn of the
assistant that follows a turn of the user becomes a pair:

- the question is the user's turn, preceded by the system turn on separate lines;
- previous turns are placed between them, as lines "User: ..." and "Assistant: ...", and "User: " is put before the
  question itself;
- the answer is the assistant's turn.

A prompt that names `{system}` or `{history}` places these itself. Turns of tools, images and the like cannot be trained
as text.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import NamedTuple

from qa_lm.data.records.column_names import by_key
from qa_lm.data.records.values import shown, text_of

USER, ASSISTANT, SYSTEM = "User", "Assistant", "System"
ROLES = {
    **dict.fromkeys(("user", "human", "prompter"), USER),
    **dict.fromkeys(("assistant", "gpt", "bot", "model", "chatgpt"), ASSISTANT),
    **dict.fromkeys(("system", "developer"), SYSTEM),
}
TOOLS = ("tool", "function", "function_call", "function_response", "observation", "ipython", "tool_call")
COLUMNS = (("prompt", "completion"), ("prompt", "chosen"))
LISTS = ("messages", "conversations", "conversation", "dialogue", "dialog", "chat")
SYSTEM_COLUMN, HISTORY_COLUMN = "system", "history"


class Turns(NamedTuple):
    """The columns of a file that contain dialogues."""

    column: str
    """The column of the turns."""
    given: str | None = None
    """A column of preceding turns (or one text of the user), which are not trained."""
    is_certain: bool = True
    """Whether a record that also has a question and an answer is read as a dialogue anyway."""

    @property
    def read(self) -> set[str]:
        """The columns that are read."""
        return {self.column, self.given or self.column, SYSTEM_COLUMN}

    def in_words(self) -> str:
        """Describe which columns are read, and as what."""
        before = f", after {self.given}" if self.given else ""
        return (
            f"dialogues in {self.column}{before}: question = a user's turn with what went before, "
            "answer = the assistant's turn"
        )


class _Turn(NamedTuple):
    role: str
    text: str
    trained: bool


def find_turns(record: Mapping[str, object], question: str | None, answer: str | None) -> Turns | None:
    """Find the columns of dialogues; None if the record contains none.

    Args:
        record: a record of the file.
        question: the question column that the user named, if any.
        answer: the answer column that the user named, if any.
    """
    found = by_key(record)
    if question or answer:
        if question and answer:
            return Turns(answer, question) if _is_turns(record.get(answer)) else None
        column = question or answer
        return Turns(column) if column and _is_turns(record.get(column)) else None
    for given, trained in COLUMNS:
        if trained in found and _is_turns(record[found[trained]]):
            return Turns(found[trained], found.get(given))
    lists = (found[name] for name in LISTS if name in found)
    return next((Turns(name, is_certain=False) for name in lists if _is_turns(record[name])), None)


def pairs_in(
    record: Mapping[str, object], turns: Turns, named: Sequence[str] = (), asked: bool = False
) -> Iterator[dict[str, object]]:
    """Convert a dialogue to records with question, answer, system, history, and its further columns.

    Args:
        record: the record of the file.
        turns: the columns of the dialogue.
        named: columns that the prompt template names.
        asked: whether the last turn of the user is a question to the model, which needs no answer.

    Raises:
        ValueError: a turn cannot be read, or the dialogue contains no pair; the message is written for the user.
    """
    if turns.column not in record:
        raise ValueError(f"no {turns.column}")
    dialogue = list(_dialogue(record, turns))
    if asked and dialogue and dialogue[-1].role == USER:
        dialogue.append(_Turn(ASSISTANT, "", True))
    others = {name: value for name, value in record.items() if name not in turns.read}
    system: list[str] = []
    before: list[_Turn] = []
    any_pair = False
    for turn in _merged(dialogue):
        if turn.role == ASSISTANT and turn.trained and before and before[-1].role == USER:
            *history, last = before
            yield others | _pair("\n".join(system), history, last.text, turn.text, named)
            any_pair = True
        if turn.role == SYSTEM and not before:
            system.append(turn.text)
        else:
            before.append(turn)
    if not any_pair:
        raise ValueError(f"{turns.column} holds no assistant's turn after a user's")


def _pair(system: str, history: list[_Turn], question: str, answer: str, named: Sequence[str]) -> dict[str, object]:
    transcript = "\n".join(f"{turn.role}: {turn.text}" for turn in history)
    lines = [system] if system and SYSTEM_COLUMN not in named else []
    if transcript and HISTORY_COLUMN not in named:
        lines += [transcript, f"{USER}: {question}"]
    else:
        lines.append(question)
    return {"question": "\n".join(lines), "answer": answer, SYSTEM_COLUMN: system, HISTORY_COLUMN: transcript}


def _dialogue(record: Mapping[str, object], turns: Turns) -> Iterator[_Turn]:
    trained = list(_turns(record[turns.column], turns.column))
    given = record.get(turns.given) if turns.given else None
    system = record.get(SYSTEM_COLUMN)
    if isinstance(system, str) and system.strip() and not any(turn.role == SYSTEM for turn in trained):
        yield _Turn(SYSTEM, system, False)
    # A `chosen` dialogue mostly holds its prompt too.
    if given is not None and not any(turn.role == USER for turn in trained):
        before = (
            _turns(given, turns.given or "") if _is_turns(given) else [_Turn(USER, text_of(given, "prompt"), False)]
        )
        yield from (turn._replace(trained=False) for turn in before)
    yield from trained


def _turns(value: object, column: str) -> Iterator[_Turn]:
    if not isinstance(value, list | tuple):
        raise ValueError(f"{column} must be a list of turns, found {shown(value)}")
    for number, turn in enumerate(value, start=1):
        where = f"turn {number} of {column}"
        if not isinstance(turn, Mapping):
            raise ValueError(f"{where} must have a role and a text, found {shown(turn)}")
        name = turn.get("role") or turn.get("from")
        role = ROLES.get(str(name).lower())
        if turn.get("tool_calls") or turn.get("function_call") or str(name).lower() in TOOLS:
            raise ValueError(f"{where} is a call of a tool or its result, which is not read")
        if role is None:
            raise ValueError(f"{where} has the role {shown(name)}; read are user, assistant and system")
        content = next((turn[key] for key in ("content", "value", "text") if turn.get(key) is not None), None)
        yield _Turn(role, text_of(_joined(content, where), f"text of {where}"), turn.get("weight") != 0)


def _joined(content: object, where: str) -> object:
    """Join OpenAI's list of parts to one text."""
    if not isinstance(content, list | tuple):
        return content
    texts = []
    for part in content:
        kind = part.get("type", "text") if isinstance(part, Mapping) else "text"
        if kind != "text":
            raise ValueError(f"{where} holds {shown(kind)}; only text is read")
        texts.append(text_of(part.get("text") if isinstance(part, Mapping) else part, f"text of {where}"))
    return "\n".join(texts)


def _merged(dialogue: list[_Turn]) -> Iterator[_Turn]:
    """Merge consecutive turns of the same role."""
    for role, group in groupby(dialogue, key=lambda turn: turn.role):
        turns = list(group)
        yield _Turn(role, "\n".join(turn.text for turn in turns), all(turn.trained for turn in turns))


def _is_turns(value: object) -> bool:
    return (
        isinstance(value, list | tuple)
        and len(value) > 0
        and isinstance(value[0], Mapping)
        and ("role" in value[0] or "from" in value[0])
    )
