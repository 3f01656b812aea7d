"""Files that are read side by side give the bytes, the findings and the errors of files read one after the other."""

import errno
import json
import random
import subprocess
import sys
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from qa_lm.config.enums import BadLines
from qa_lm.data.readers.reading import PairReader, Reading, file_sources
from qa_lm.data.storage import side_by_side
from qa_lm.data.storage.side_by_side import read_chunks
from qa_lm.data.table import BATCH, write_table
from qa_lm.errors import UserError
from tests.prepared_pairs import jsonl, prepared

PYTHON = sys.executable


@pytest.fixture
def processes(monkeypatch):
    """Every file is large; returns the processes that were started."""
    started: list[subprocess.Popen[bytes]] = []

    class Counted(subprocess.Popen[bytes]):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            started.append(self)

    monkeypatch.setattr(side_by_side.subprocess, "Popen", Counted)
    monkeypatch.setattr(side_by_side, "_cores", lambda: 2)
    monkeypatch.setattr(side_by_side, "LARGE", 1)
    return started


def one_after_the_other(monkeypatch):
    monkeypatch.setattr(side_by_side, "_cores", lambda: 1)


def records(count, seed):
    dice = random.Random(seed)
    for number in range(count):
        record: dict[str, Any] = {
            "question": f'Is "{dice.randrange(count)}" ünusual?\U0001f600',
            "answer": f"Yes, {number % 7}",
        }
        if dice.random() < 0.5:
            record["group"] = f"g{dice.randrange(9)}"
        if dice.random() < 0.1:
            record["answer"] = ["one", f"or {number}"]
        yield record


def some_files(folder):
    """Formats, accepted answers, groups that are missing, bad lines, a dialogue; more than a batch together."""
    lines = [json.dumps(record, ensure_ascii=False) for record in records(BATCH + 100, 0)]
    lines[7] = '{"question": "no answer?"}'
    lines[9] = "not JSON"
    (folder / "a.jsonl").write_text("\n".join(lines))
    turns = [("user", "Hi"), ("assistant", "Hello"), ("user", "Bye"), ("assistant", "Goodbye")]
    messages = [{"role": role, "content": text} for role, text in turns]
    (folder / "b.json").write_text(json.dumps([{"messages": messages}]))  # read by the process itself
    (folder / "c.csv").write_text("question;answer;source\n" + "What?;That;x\nWho?;;y\n" * 40, encoding="utf-16")
    columns = {"question": [f"{n}?" for n in range(BATCH - 30)], "answer": ["#N/A"] * (BATCH - 30)}
    pq.write_table(pa.table(columns), folder / "d.parquet")
    return [str(folder / name) for name in ("a.jsonl", "b.json", "c.csv", "d.parquet")]


def table_of(files, folder, **settings):
    reader = PairReader(file_sources(files, "data.path"), Reading(**settings))
    folder.mkdir()
    found = write_table(folder, read_chunks(reader, folder)) | reader.found()
    return json.dumps(found), {file.name: file.read_bytes() for file in folder.iterdir()}


def test_the_table_has_the_same_bytes(processes, tmp_path, monkeypatch):
    files = some_files(tmp_path)
    found = table_of(files, tmp_path / "side_by_side", skip_bad_lines=True)
    assert len(processes) == 3
    one_after_the_other(monkeypatch)
    expected = table_of(files, tmp_path / "expected", skip_bad_lines=True)
    assert len(processes) == 3
    assert json.loads(found[0])["count"] > 2 * BATCH
    assert json.loads(found[0])["bad_lines"]["count"] == 42
    assert found == expected


@pytest.mark.parametrize(
    ("names", "settings"),
    [
        (("bad.jsonl", "good.jsonl", "bad.csv"), {}),
        (("good.jsonl", "columns.csv", "latin.jsonl"), {}),
        (("latin.jsonl", "columns.csv"), {"encoding": "nothing"}),
        (("cut.jsonl.gz", "good.jsonl"), {}),
        (("bad.jsonl", "cannot.jsonl", "columns.csv"), {}),
    ],
)
def test_the_error_is_the_same(processes, tmp_path, monkeypatch, names, settings):
    jsonl(tmp_path / "good.jsonl", [("a", "b")])
    (tmp_path / "bad.jsonl").write_text('{"question": "a"}\nno\n')
    (tmp_path / "bad.csv").write_text("question,answer\n,b\n")
    (tmp_path / "columns.csv").write_text("one,two,three\na,b,c\n")
    (tmp_path / "latin.jsonl").write_bytes('{"question": "é", "answer": "b"}\n'.encode("latin-1"))
    (tmp_path / "cut.jsonl.gz").write_bytes(b"\x1f\x8b\x08\x00")
    jsonl(tmp_path / "cannot.jsonl", [("a", "b")])
    files = [str(tmp_path / name) for name in names]
    sources = file_sources(files, "data.path")
    if "cannot.jsonl" in names:
        (tmp_path / "cannot.jsonl").unlink()  # after it was found
    monkeypatch.setattr(side_by_side, "_is_large", lambda source: source.suffix in side_by_side.STREAMED)

    def error(folder):
        folder.mkdir()
        with pytest.raises(UserError) as raised:
            write_table(folder, read_chunks(PairReader(sources, Reading(**settings)), folder))
        return str(raised.value), raised.value.key, sorted(file.name for file in folder.iterdir() if file.is_dir())

    found = error(tmp_path / "side_by_side")
    assert bool(processes) is not bool(settings)
    assert all(process.returncode is not None for process in processes)
    one_after_the_other(monkeypatch)
    assert found == error(tmp_path / "expected")


def test_small_files_start_no_process(processes, tmp_path, monkeypatch):
    monkeypatch.setattr(side_by_side, "LARGE", 1 << 20)
    files = [jsonl(tmp_path / f"{number}.jsonl", [(f"{number}?", "b")]) for number in range(3)]
    jsonl(tmp_path / "large.jsonl", [("a" * (1 << 20), "b")])
    table_of([*map(str, files), str(tmp_path / "large.jsonl")], tmp_path / "table")
    assert processes == []


def test_a_killed_process_and_a_full_disk_are_named(processes, tmp_path, monkeypatch):
    files = some_files(tmp_path)[::2]
    monkeypatch.setattr(side_by_side.sys, "executable", str(tmp_path / "python"))
    (tmp_path / "python").write_text("#!/bin/sh\nkill -9 $$\n")
    (tmp_path / "python").chmod(0o755)
    with pytest.raises(UserError, match=r"a.jsonl: cannot be read: its process was killed; .* \(signal 9\)"):
        table_of(files, tmp_path / "killed")
    answer = "import errno, pickle, sys; sys.stdout.buffer.write(pickle.dumps(OSError(errno.ENOSPC, 'No space left')))"
    (tmp_path / "python").write_text(f'#!/bin/sh\nexec {PYTHON} -c "{answer}"\n')
    with pytest.raises(OSError, match="No space left") as raised:  # `cached_folder` names the folder
        table_of(files, tmp_path / "full")
    assert raised.value.errno == errno.ENOSPC


def test_training_data_of_several_files(processes, tmp_path):
    """From a script without a guard of its main module, pairs are read by processes that do not run the script."""
    files = [jsonl(tmp_path / f"{name}.jsonl", [(f"{name} {n}?", f"{n}") for n in range(30)]) for name in "ab"]
    found = prepared(tmp_path / "?.jsonl", tmp_path / "cache", bad_lines=BadLines.skip)
    assert len(processes) == len(files)
    assert [pair.question for pair in found.table.pairs([0, 30])] == ["a 0?", "b 0?"]
