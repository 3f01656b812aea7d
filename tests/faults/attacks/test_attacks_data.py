"""Files of pairs, ledgers and data sets from others; names that lead out of a folder; links to elsewhere."""

import json
import pickle
import runpy
from pathlib import Path

import pandas  # type: ignore[import-untyped]
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from qa_lm.data.readers.arrow import read_hub
from qa_lm.data.tokenizer import hub_folder
from qa_lm.errors import UserError
from qa_lm.reporting.loss_curve import draw_loss_curve
from qa_lm.reporting.run.report import write_report
from qa_lm.run.atomic import write_json, write_jsonl
from qa_lm.training.checkpointing.checkpoints import DirectCheckpointIO
from tests.conftest import read
from tests.faults.attacks.hostile import below, copied, refused, trap
from tests.scripts_as_modules import ask, check_data, evaluate, ledger

__all__ = ["trap"]

EXTENSION, METADATA = b"ARROW:extension:name", b"ARROW:extension:metadata"


def with_extension(path, trap):
    """A Parquet file whose answers are of an extension type that is a pickle (CVE-2023-47248)."""
    field = pa.field("answer", pa.string(), metadata={EXTENSION: b"arrow.py_extension_type", METADATA: trap.pickled})
    schema = pa.schema([pa.field("question", pa.string()), field])
    pq.write_table(pa.table([["What?", "Who?"], ["That.", "Me."]], schema=schema), path)


def test_parquet_with_a_pickled_type(tmp_path, trap):
    path = tmp_path / "pairs.parquet"
    with_extension(path, trap)
    # What pyarrow did when it read such a file, before 14.0.1.
    pickle.loads(pq.read_schema(path).field("answer").metadata[METADATA])
    assert trap.sprang
    assert [tuple(pair[:2]) for pair in read(path)] == [("What?", "That."), ("Who?", "Me.")]
    assert not trap.sprang


def test_parquet_with_pickled_values(tmp_path, trap, capsys):
    path = tmp_path / "pairs.parquet"
    table = pa.table({"question": ["What?", "Who?"], "answer": [trap.pickled, trap.pickled]})
    pq.write_table(table.replace_schema_metadata({"payload": trap.pickled}), path)
    pickle.loads(pandas.read_parquet(path)["answer"][0])
    assert trap.sprang
    pickle.loads(pq.read_schema(path).metadata[b"payload"])
    assert trap.sprang
    assert "the answer holds bytes that are not UTF-8 text" in said_of(path, capsys)
    assert not trap.sprang


def said_of(path, capsys):
    """What check_data.py says of a file that cannot be trained."""
    capsys.readouterr()
    assert check_data.main([str(path), "--cache", "off"]) == 2
    said = capsys.readouterr().err
    assert "Traceback" not in said
    return said


def test_a_ledger_with_a_pickled_type(tmp_path, trap, small_run, capsys):
    run = copied(small_run.folder, tmp_path / "theirs")
    table = pq.read_table(run / "ledger.parquet")
    fields = [
        field.with_metadata({EXTENSION: b"arrow.py_extension_type", METADATA: trap.pickled}) for field in table.schema
    ]
    pq.write_table(pa.table(table.columns, schema=pa.schema(fields)), run / "ledger.parquet")
    pickle.loads(pq.read_schema(run / "ledger.parquet").field("place").metadata[METADATA])
    assert trap.sprang
    assert ledger.main([str(run)]) == 0
    assert ask.main([str(run), "How are you?", "--explain"]) == 0
    assert not trap.sprang


TEXTS = {"question": ["a"], "answer": ["b"]}
LISTED = {"place": ["a:1"], **TEXTS, "forgotten": [0], "last_loss": [0.5], "why": [""]}
OTHER_TABLES = [
    {"a": [1]},
    {**LISTED, "suspicion": ["x"], "learnt_at": ["x"]},
    {"question": pa.array([], pa.string()), "answer": pa.array([], pa.string())},
    {"question": [None], "answer": ["b"]},
    {"question": [b"\xff"], "answer": ["b"]},
]


@pytest.mark.parametrize("content", [b"", b"PAR1", b"x" * 99, *OTHER_TABLES], ids=lambda content: str(content)[:30])
def test_a_ledger_that_is_none(tmp_path, small_run, capsys, content):
    run = copied(small_run.folder, tmp_path / "theirs")
    path = run / "ledger.parquet"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        pq.write_table(pa.table(content), path)
    assert str(path) in refused(ledger.main, [str(run)], capsys)
    if content is not OTHER_TABLES[1]:  # whose texts can be used
        assert str(path) in refused(ask.main, [str(run), "How are you?", "--explain"], capsys)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", "5", '{"pairs": "x"}', "[" * 100_000], ids=lambda text: text[:9])
def test_a_summary_of_a_ledger_that_is_none(tmp_path, small_run, capsys, text):
    run = copied(small_run.folder, tmp_path / "theirs")
    (run / "ledger_summary.json").write_text(text)
    assert "ledger_summary.json: not a valid summary" in refused(ledger.main, [str(run)], capsys)


@pytest.mark.parametrize("name", ["../../x", "/etc/passwd", "a/b/c", "..", "a/..", "x\0y"])
def test_a_hub_tokenizer_whose_name_leads_elsewhere(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="cannot be downloaded from the Hugging Face hub") as error:
        hub_folder(name)
    assert len(str(error.value).splitlines()) <= 2
    assert below(tmp_path) == {}


def test_a_data_set_that_is_a_pickle(tmp_path, trap, monkeypatch):
    pytest.importorskip("datasets")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    (tmp_path / "train.pkl").write_bytes(trap.pickled)
    pandas.read_pickle(tmp_path / "train.pkl")
    assert trap.sprang
    for name in ("pandas", str(tmp_path)):
        with pytest.raises(UserError, match="cannot be loaded") as error:
            list(read_hub(name, None, "train"))
        assert len(str(error.value).splitlines()) <= 2
        assert not trap.sprang


def test_a_data_set_with_a_program(tmp_path, trap):
    pytest.importorskip("datasets")
    folder = tmp_path / "pairs"
    folder.mkdir()
    (folder / "pairs.py").write_text(trap.code)
    runpy.run_path(str(folder / "pairs.py"))
    assert trap.sprang
    with pytest.raises(UserError, match="cannot be loaded: Dataset scripts are no longer supported"):
        list(read_hub(str(folder), None, "train"))
    (folder / "pairs.py").rename(folder / "other.py")
    (folder / "train.jsonl").write_text(json.dumps({"question": "a", "answer": "b"}) + "\n")
    assert list(read_hub(str(folder), None, "train")) == [(1, {"question": "a", "answer": "b"})]
    assert not trap.sprang


def written_by(name, run, small_run):
    """Write a file of a run again, as the end of a run does."""
    if name == "loss_curve.png":
        draw_loss_curve(run)
    elif name in ("report.html", "report.md"):
        write_report(run)
    elif name == "answers.jsonl":
        write_jsonl(run / name, [])
    elif name.endswith(".json"):
        write_json(run / name, {})
    else:
        DirectCheckpointIO().save_checkpoint({"epoch": 0, "global_step": 0, "weight": torch.zeros(9)}, run / name)


@pytest.mark.parametrize(
    "name",
    ["loss_curve.png", "report.html", "report.md", "metrics.json", "answers.jsonl", "checkpoints/last.ckpt"],
)
def test_a_file_of_a_run_that_is_a_link_to_elsewhere(tmp_path, small_run, name):
    run = copied(small_run.folder, tmp_path / "theirs")
    draw_loss_curve(run)
    kept = tmp_path / "kept"
    path = run / name
    path.unlink(missing_ok=True)
    path.symlink_to(kept)
    path.write_text("through the link")
    assert kept.read_text() == "through the link"
    written_by(name, run, small_run)
    assert kept.read_text() == "through the link"
    assert path.is_file()
    assert not path.is_symlink()


def test_an_evaluation_over_links_to_elsewhere(tmp_path, small_run, capsys):
    out, kept = tmp_path / "out", tmp_path / "kept"
    out.mkdir()
    kept.write_text("kept")
    for name in ("answers.jsonl", "board.json"):
        (out / name).symlink_to(kept)
    assert evaluate.main([str(small_run.folder), "--out", str(out)]) == 0
    assert kept.read_text() == "kept"


@pytest.mark.parametrize("last", ["..", ".", "a/../.."])
def test_an_evaluation_is_named_by_the_folder_itself(tmp_path, small_run, capsys, monkeypatch, last):
    """`evaluation/` + the name as it was given would be elsewhere."""
    run = copied(small_run.folder, tmp_path / "here" / "theirs")
    for folder in ("a", "a/b"):
        (run / folder).mkdir()
    where = {"..": run / "a", ".": run, "a/../..": run / "a"}[last]
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    before = below(tmp_path / "here")
    assert evaluate.main([str(where / last)]) in (0, 2)
    assert below(tmp_path / "here") == before
    assert {Path(name).parts[0] for name in below(tmp_path / "work")} <= {"evaluation"}
