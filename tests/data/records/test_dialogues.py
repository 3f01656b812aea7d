"""Dialogues become pairs, and all pairs of one stay on one side of a split."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from qa_lm.config.schema import TokenizerConfig
from qa_lm.data.pairs import Pair
from qa_lm.data.readers.reading import PairReader, Reading, file_sources
from qa_lm.data.records.columns import ColumnNames
from qa_lm.data.splits.draw import joined_units
from qa_lm.errors import UserError
from qa_lm.templates import parse_template
from tests.conftest import read
from tests.data.records.test_prompt_columns import as_jsonl
from tests.prepared_pairs import prepared

SYSTEM = {"role": "system", "content": "Be kind."}
HI = {"role": "user", "content": "Hi?"}
HELLO = {"role": "assistant", "content": "Hello."}
MORE = {"role": "user", "content": "More?"}
YES = {"role": "assistant", "content": "Yes."}
LONG = "Be kind.\nUser: Hi?\nAssistant: Hello.\nUser: More?"


def of(*turns):
    return [
        {"from": {"user": "human", "assistant": "gpt"}.get(t["role"], t["role"]), "value": t["content"]} for t in turns
    ]


@pytest.mark.parametrize(
    ("record", "pairs"),
    [
        ({"messages": [HI, HELLO]}, [("Hi?", "Hello.")]),
        ({"messages": [SYSTEM, HI, HELLO]}, [("Be kind.\nHi?", "Hello.")]),
        ({"id": 1, "conversations": of(SYSTEM, HI, HELLO)}, [("Be kind.\nHi?", "Hello.")]),
        ({"conversations": of(HI, HELLO), "system": "Be kind."}, [("Be kind.\nHi?", "Hello.")]),
        ({"messages": [SYSTEM, HI, HELLO, MORE, YES]}, [("Be kind.\nHi?", "Hello."), (LONG, "Yes.")]),
        ({"messages": [HI, HELLO, MORE]}, [("Hi?", "Hello.")]),
        ({"messages": [HI, MORE, YES]}, [("Hi?\nMore?", "Yes.")]),
        ({"messages": [HELLO, MORE, YES]}, [("Assistant: Hello.\nUser: More?", "Yes.")]),
        ({"messages": [HI, HELLO | {"weight": 0}, MORE, YES]}, [("User: Hi?\nAssistant: Hello.\nUser: More?", "Yes.")]),
        ({"messages": [SYSTEM | {"role": "developer"}, HI, HELLO]}, [("Be kind.\nHi?", "Hello.")]),
        (
            {"messages": [HI | {"content": [{"type": "text", "text": "Hi"}, {"type": "text", "text": "you?"}]}, HELLO]},
            [("Hi\nyou?", "Hello.")],
        ),
        ({"prompt": [SYSTEM, HI], "completion": [HELLO]}, [("Be kind.\nHi?", "Hello.")]),
        ({"prompt": [HI, HELLO, MORE], "completion": [YES]}, [("User: Hi?\nAssistant: Hello.\nUser: More?", "Yes.")]),
        ({"prompt": [HI], "chosen": [HELLO], "rejected": [YES]}, [("Hi?", "Hello.")]),
        ({"prompt": "Hi?", "chosen": [HI, HELLO], "rejected": [HI, YES]}, [("Hi?", "Hello.")]),
        ({"prompt": "Hi?", "chosen": [HELLO], "rejected": [YES]}, [("Hi?", "Hello.")]),
        ({"prompt": "Hi?", "chosen": "Hello.", "rejected": "Yes."}, [("Hi?", "Hello.")]),
        ({"question": "a?", "answer": "b", "messages": [HI, HELLO]}, [("a?", "b")]),
    ],
)
def test_each_turn_of_the_assistant_is_a_pair(tmp_path, record, pairs):
    assert [pair[:2] for pair in read(as_jsonl([record], tmp_path))] == pairs
    if isinstance(record.get("messages", [HI])[0]["content"], list):
        return  # Parquet has one type for all turns
    pa.parquet.write_table(pa.Table.from_pylist([record]), tmp_path / "pairs.parquet")
    assert [pair[:2] for pair in read(tmp_path / "pairs.parquet")] == pairs


def test_the_columns_of_a_dialogue_are_said_and_can_be_named(tmp_path):
    path = as_jsonl([{"messages": [SYSTEM, HI, HELLO, MORE, YES], "topic": "t", "group": "g"}], tmp_path)
    reader = PairReader(file_sources(str(path), "data.path"), Reading())
    assert [pair.group for _, _, pair in reader.pairs()] == ["g", "g"]
    (said,) = reader.columns.values()
    assert said.startswith("dialogues in messages: question = a user's turn with what went before")
    assert said.endswith(", group = g; not read: topic".replace("group = g", "group = group"))
    how = {"prompt": parse_template("{system} [{history}] {topic} {question}").parts}
    assert read(path, **how) == [
        Pair("Be kind. [] t Hi?", "Hello.", (), "g"),
        Pair("Be kind. [User: Hi?\nAssistant: Hello.] t More?", "Yes.", (), "g"),
    ]
    path = as_jsonl([{"talk": [HI, HELLO]}], tmp_path)
    assert read(path, columns=ColumnNames(question="talk")) == [Pair("Hi?", "Hello.")]


@pytest.mark.parametrize(
    ("turns", "message"),
    [
        (
            [HI, {"role": "assistant", "content": None, "tool_calls": [{"id": 1}]}],
            "turn 2 of messages is a call of a tool",
        ),
        ([HI, {"role": "tool", "content": "4"}, YES], "turn 2 of messages is a call of a tool or its result"),
        ([HI | {"content": [{"type": "image_url", "image_url": "x"}]}, YES], 'turn 1 of messages holds "image_url"'),
        ([HI | {"role": "narrator"}, YES], 'turn 1 of messages has the role "narrator"; read are user, assistant'),
        ([HI, HELLO | {"content": ""}], "the text of turn 2 of messages is empty"),
        ([HI, {"role": "assistant"}], "the text of turn 2 of messages is missing"),
        ([HI, "Hello."], "turn 2 of messages must have a role and a text"),
        ([HI], "messages holds no assistant's turn after a user's"),
        ("Hi?", "messages must be a list of turns"),
        ([], "messages holds no assistant's turn"),
    ],
)
def test_turns_that_cannot_be_trained_are_bad_lines(tmp_path, turns, message):
    path = as_jsonl([{"messages": [HI, HELLO]}, {"messages": turns}], tmp_path)
    with pytest.raises(UserError, match=r"pairs.jsonl:2: ") as error:
        read(path)
    assert message in str(error.value)
    assert read(path, skip_bad_lines=True) == [Pair("Hi?", "Hello.")]


@pytest.mark.parametrize("split", ["question", "near"])
def test_the_pairs_of_a_dialogue_stay_on_one_side(tmp_path, split):
    def user(text):
        return HI | {"content": text}

    talks = [
        {"messages": [user(f"What is {n * 7919 % 1000}?"), YES, user(f"Why {n}?"), YES, user("And?"), YES]}
        for n in range(20)
    ]
    data = prepared(as_jsonl(talks, tmp_path), tmp_path / "cache", TokenizerConfig("bpe", vocab_size=300), split=split)
    lines = data.table.numbers("line")
    sides = [set(lines[side].tolist()) for side in data.split[:2]]
    assert sides[0].isdisjoint(sides[1])
    assert sorted(map(len, sides)) == [4, 16]


def test_units_that_share_a_dialogue_are_joined():
    units = np.array([5, 6, 6, 9, 9, 7], np.uint64)
    line = np.array([1, 1, 2, 2, 3, 4])
    assert joined_units(units, np.zeros(6, int), line).tolist() == [5, 5, 5, 5, 5, 7]
    source = np.array([0, 1, 1, 2, 2, 2])  # the same line of another file is another dialogue
    assert joined_units(units, source, np.array([1, 1, 2, 2, 3, 4])).tolist() == units.tolist()


def test_a_dialogue_in_json_is_asked_by_its_last_turn(tmp_path):
    from qa_lm.data.encoding import PromptTemplate
    from qa_lm.data.question_files import questions_in

    path = tmp_path / "asked.json"
    path.write_text(json.dumps([{"messages": [SYSTEM, HI, HELLO, MORE]}]))
    assert questions_in(path, PromptTemplate(), {}, None, "utf-8") == [LONG]
