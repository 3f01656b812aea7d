"""Files of pairs: what is read from each format, and what is said of a bad one."""

import csv
import gzip
import json
import string
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from qa_lm.data.pairs import Pair, normalise_question, text_key
from qa_lm.data.readers.formats import READERS
from qa_lm.data.readers.reading import PairReader, Reading, file_sources
from qa_lm.errors import UserError
from tests.conftest import SHARED_DATA, builtin, read, table_of

WRITTEN = [suffix for suffix in READERS if suffix != ".xlsx"]  # tests/data/readers/test_excel.py has that
GOOD = '{"question": "a?", "answer": "b"}\n'
PAIRS = [Pair("a?", "two\nlines"), Pair("b, c?", 'say "no";\t\u2028\x85 x'), Pair("누구?", "🙂 e\u0301", ("other",))]


def write(folder: Path, content: str | bytes, name: str = "pairs.jsonl") -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def as_file(pairs: list[Pair], path: Path) -> Path:
    """Write the pairs in the format that the name asks for, by the libraries that everyone uses."""
    records = [
        {"question": p.question, "answer": [p.answer, *p.other_answers] if p.other_answers else p.answer} for p in pairs
    ]
    suffix = Path(path.stem).suffix if path.suffix == ".gz" else path.suffix
    if suffix == ".parquet":
        listed = [{"question": p.question, "answer": [p.answer, *p.other_answers]} for p in pairs]
        pa.parquet.write_table(pa.Table.from_pylist(listed), path.with_suffix(".tmp"))
        content = path.with_suffix(".tmp").read_bytes()
    elif suffix in (".csv", ".tsv"):
        with path.with_suffix(".tmp").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, delimiter="," if suffix == ".csv" else "\t")
            writer.writerows([["question", "answer"], *([p.question, p.answer] for p in pairs)])
        content = path.with_suffix(".tmp").read_bytes()
    elif suffix == ".json":
        content = json.dumps(records, ensure_ascii=False, indent=1).encode()
    else:
        content = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records).encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


@pytest.mark.parametrize("zipped", ["", ".gz"])
@pytest.mark.parametrize("suffix", WRITTEN)
def test_every_format_gives_the_same_pairs(tmp_path, suffix, zipped):
    pairs = PAIRS if suffix not in (".csv", ".tsv") else PAIRS[:2]  # a CSV field holds no list
    assert read(as_file(pairs, tmp_path / f"pairs{suffix}{zipped}")) == pairs


texts = st.text(st.characters(codec="utf-8"), min_size=1, max_size=30).filter(str.strip)


@given(st.lists(st.tuples(texts, texts), min_size=1, max_size=5), st.sampled_from(WRITTEN))
@settings(max_examples=300, deadline=None)
def test_any_text_comes_back_equal(tmp_path_factory, texts_of_pairs, suffix):
    """Between tabs, a quoted text with tabs and line ends may as well be lines of pairs with stray marks."""
    doubtful = any("\t" in text and set(text) & {"\n", "\r"} for texts in texts_of_pairs for text in texts)
    assume(not doubtful or suffix != ".tsv")
    pairs = [Pair(*both) for both in texts_of_pairs]
    folder = tmp_path_factory.mktemp("any")
    assert read(as_file(pairs, folder / f"pairs{suffix}")) == pairs


def test_jsonl_with_a_byte_order_mark_crlf_and_line_separators(tmp_path):
    content = '\ufeff{"question": "a?", "answer": "b\u2028c\x85d", "id": 3}\r\n\n{"question": "x", "answer": "🙂"}'
    assert read(write(tmp_path, content)) == [Pair("a?", "b\u2028c\x85d"), Pair("x", "🙂")]


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_csv_with_a_byte_order_mark_quoted_line_ends_and_semicolons(tmp_path, ending):
    rows = ["id;answer;question", '1;"two\nlines";a?', "", '2;"say ""no""";"b; c?"']
    path = write(tmp_path, "\ufeff" + ending.join(rows), "pairs.csv")
    assert read(path) == [Pair("a?", "two\nlines"), Pair("b; c?", 'say "no"')]


def test_csv_without_a_header_line(tmp_path):
    path = write(tmp_path, "1,b,a?\n2,d,c?\n", "pairs.csv")
    assert read(path, header=("id", "answer", "question")) == [Pair("a?", "b"), Pair("c?", "d")]


def test_squad_nesting_and_its_unanswerable_questions(tmp_path):
    answers = [{"text": "Paris", "answer_start": 0}, {"text": "paris"}, {"text": "Paris"}]
    questions = [{"question": "Capital?", "id": 1, "answers": answers}, {"question": "Why?", "answers": []}]
    content = {"version": "2", "data": [{"title": "t", "paragraphs": [{"context": "c", "qas": questions}]}]}
    path = write(tmp_path, json.dumps(content), "squad.json")
    assert read(path, skip_bad_lines=True) == [Pair("Capital?", "Paris", ("paris",))]
    with pytest.raises(UserError, match="squad.json:2: the question has no answer; data.unanswerable=skip leaves"):
        read(path)


def test_json_lines_under_the_name_json_and_one_object(tmp_path):
    assert read(write(tmp_path, GOOD + GOOD, "a.json")) == [Pair("a?", "b")] * 2
    assert read(write(tmp_path, GOOD, "b.json")) == [Pair("a?", "b")]
    assert read(write(tmp_path, '{\n"data": [\n' + GOOD + "]}", "c.json")) == [Pair("a?", "b")]


def test_records_of_a_json_list_are_placed_by_line(tmp_path):
    content = json.dumps([{"question": f"q{i}", "answer": "a\n[{" * i + "x"} for i in range(50)], indent=2)
    assert len(read(write(tmp_path, content, "a.json"))) == 50
    records = ['{"question": "a", "answer": "b"}', '\n{"question": "c",\n"answer": "d"}', GOOD.replace('"b"', "{}")]
    path = write(tmp_path, "[" + ",\n".join(records) + "]", "a.json")
    with pytest.raises(UserError, match=r"a.json:5: the answer must be text, found {}"):
        read(path)


def test_json_on_one_line_and_squad_are_placed_by_number(tmp_path):
    records = [{"question": f"q{i}", "answer": "a" if i != 2 else ""} for i in range(4)]
    for content in (
        records,
        {"data": records},
        {"data": [{"paragraphs": [{"qas": records[:1]}, {"qas": records[1:]}]}]},
    ):
        with pytest.raises(UserError, match=r"pairs.json:3: the answer is empty"):
            read(write(tmp_path, json.dumps(content), "pairs.json"))


def test_messages_can_always_be_printed(tmp_path):
    path = write(tmp_path, GOOD + '{"\\ud800": "x"}\n')
    with pytest.raises(UserError, match=r":2: no question; found the keys \\ud800") as error:
        read(path)
    str(error.value).encode()
    with pytest.raises(UserError, match="cannot be read: File name too long"):
        file_sources("a" * 300 + ".jsonl", "data.path")


def test_several_files_and_globs(tmp_path):
    for name in ("b.jsonl", "a.csv"):
        as_file(PAIRS[:1], tmp_path / name)
    sources = file_sources([str(tmp_path / "*.jsonl"), str(tmp_path / "a.csv")], "data.path")
    assert [Path(source.name).name for source in sources] == ["b.jsonl", "a.csv"]
    assert [place[:2] for place in PairReader(sources, Reading()).pairs()] == [(0, 1), (1, 2)]
    write(tmp_path, GOOD, "a[1].jsonl")
    assert read(tmp_path / "a[1].jsonl") == [Pair("a?", "b")]  # a file of that very name is no glob


def test_a_hub_data_set_from_a_local_folder_and_without_a_network(tmp_path):
    from qa_lm.data.readers.arrow import read_hub

    as_file(PAIRS[:2], tmp_path / "train.jsonl")
    records = [(line, dict(record)) for line, record in read_hub(str(tmp_path), None, "train")]  # type: ignore[misc]
    assert records == [
        (1, {"question": "a?", "answer": "two\nlines"}),
        (2, {"question": "b, c?", "answer": PAIRS[1].answer}),
    ]
    with pytest.raises(UserError, match=r"data.hub=no-such-set: cannot be loaded: .*\n.*network"):
        list(read_hub("no-such-set", None, "train"))


def test_without_the_package_datasets_the_error_says_what_to_install(monkeypatch):
    from qa_lm.data.readers.arrow import read_hub

    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UserError, match="pip install datasets"):
        list(read_hub("squad", None, "train"))


def test_the_table_gives_back_pairs_places_and_keys(tmp_path):
    pairs = [*PAIRS, *(Pair(f"q{i}", "a", (), "g" if i % 2 else None) for i in range(10_000))]
    table = table_of(pairs, tmp_path)
    assert [pair for batch in table.batches() for pair in batch] == pairs
    assert table.pairs([10_002, 0, 5000, 0]) == [pairs[10_002], pairs[0], pairs[5000], pairs[0]]
    assert table.place(4999) == "pairs:5000"
    assert table.numbers("question_key")[2] == text_key("누구?")
    assert (table.numbers("group_key")[3:5] == [0, text_key("g")]).all()


def test_fingerprint_tells_texts_and_their_borders_apart(tmp_path):
    kinds = ([Pair("ab", "c")], [Pair("a", "bc")], [Pair("ab", "c")] * 2, [Pair("ab", "c", ("d",))])
    assert len({table_of(pairs, tmp_path).fingerprint for pairs in kinds}) == 4


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("What is  it?", " what\tis it", True),
        ("\uff21\uff22?", "ab!", True),
        ("Straße", "STRASSE?!", True),
        ("cafe\u0301", "café.", True),
        ("누구세요\uff1f", "누구세요", True),
        ("What is 2 + 2", "What is 2 - 2", False),
        ("C++", "C", False),
        ("???", "!!!", False),
    ],
)
def test_when_two_questions_are_the_same(one, other, same):
    assert (normalise_question(one) == normalise_question(other)) is same


def test_the_shipped_capitals():
    pairs = builtin("capitals")
    groups = {pair.group for pair in pairs}
    assert len(groups) >= 190
    assert len({pair.question for pair in pairs}) == len(pairs) >= 6 * len(groups)
    by_group = {group: [pair for pair in pairs if pair.group == group] for group in groups}
    assert min(map(len, by_group.values())) >= 6
    assert {len({pair.answer for pair in of_one}) for of_one in by_group.values()} == {1}
    tutorial = {pair[:2] for pair in builtin("tutorial") if "capital" in pair.question}
    assert len(tutorial) == 3
    assert tutorial <= {pair[:2] for pair in pairs}
    printable = set(string.printable)
    assert all(pair.question.strip() == pair.question and set("\t\n\r").isdisjoint(pair.question) for pair in pairs)
    assert printable > set("".join(pair.question for pair in pairs if pair.group == "France"))


@pytest.mark.skipif(not SHARED_DATA.is_dir(), reason="the folder of real pairs is not beside this clone")
@pytest.mark.parametrize(
    ("name", "count"),
    [
        *(("nq_open_dev", 3610), ("webquestions", 5810), ("korean_chatbot", 11_823)),
        *(("gsm8k_train", 7473), ("gsm8k_test", 1319), ("tldr_en", 32_135)),
    ],
)
def test_real_files(name, count):
    pairs = read(SHARED_DATA / f"{name}.jsonl.gz")
    assert len(pairs) == count
    if name.startswith("gsm8k"):
        assert all("\n" in pair.answer for pair in pairs[:100])
    if name == "gsm8k_train":
        assert sum(text.count("\u2028") for pair in pairs for text in pair[:2]) == 2
