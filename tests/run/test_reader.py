"""A run folder, read; and who knows the names in it."""

import ast
from pathlib import Path

import pytest

from qa_lm import Run
from qa_lm.errors import UserError
from qa_lm.run import run_folder as names
from qa_lm.run.reader import read_answers, read_board, read_epochs, read_metrics, read_run
from tests.conftest import ROOT
from tests.reporting.report_example import BOARD, LEDGER, METRICS, run_folder


def test_all_is_read(tmp_path):
    run = read_run(folder := run_folder(tmp_path))
    assert (run.name, run.config["optimizer"]["lr"], run.data_report["counts"]["train"]) == (
        *("2026-11-25/04-16-36", 0.0045, 1050),
    )
    assert (run.metrics, run.board, run.ledger, len(run.answers)) == (METRICS, BOARD, LEDGER, 3)
    assert run.epochs[2] == {"epoch": 3, "step": 24, "train_loss": 1.125, "train_recall": 0.75} | dict.fromkeys(
        ("val_loss", "val_exact_match")
    )
    assert (run.bad_batches, run.has_picture) == ([], False)
    assert Run(folder).metrics == METRICS
    assert Run(folder).board == BOARD


def test_a_run_that_still_trains_has_no_results(tmp_path):
    folder = run_folder(tmp_path, metrics=None, board=None, ledger_summary=None, answers=[])
    run = read_run(folder)
    assert (run.metrics, run.board["rows"], run.ledger, run.answers) == ({}, [], None, [])
    for read in (read_metrics, read_board):
        with pytest.raises(UserError, match="is missing; it is written when training ends$"):
            read(folder)


@pytest.mark.parametrize(
    ("name", "read", "content"),
    [
        *((names.METRICS, read_metrics, content) for content in (b"{", b"[]\n", b"\xff")),
        *((names.BOARD, read_board, content) for content in (b"", b"null")),
        *((names.ANSWERS, read_answers, content) for content in (b"{}\n{", b"1\n")),
        *((names.METRICS_BY_EPOCH, read_epochs, content) for content in (b"\xff", b"epoch\nx\n", b"epoch\n1,2\n")),
    ],
)
def test_a_damaged_file_is_named(tmp_path, name, read, content):
    folder = run_folder(tmp_path)
    (folder / name).write_bytes(content)
    with pytest.raises(UserError, match=f"^{folder / name}: cannot be read: "):
        read(folder)


NAMES = {
    value
    for key, value in vars(names).items()
    if key.isupper() and isinstance(value, str) and key not in ("WRITTEN", "PROBE_FILE")
}
TYPED_ELSEWHERE = {names.MODEL, names.CHECKPOINTS, names.PROFILE, names.LOCK}
"""Words that also mean something else; as names of a run folder they follow a slash."""


def spelled(file: Path) -> list[str]:
    """The names of a run folder's files that are written out in a file."""
    found = []
    for node in ast.walk(ast.parse(file.read_text())):
        parts: list[str] = []
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div) and isinstance(node.right, ast.Constant):
            parts = str(node.right.value).split("/")
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and " " not in node.value:
            parts = [part for part in node.value.split("/") if part not in TYPED_ELSEWHERE]
        found += [f"{file.relative_to(ROOT)}:{node.lineno}: {part}" for part in parts if part in NAMES]  # type: ignore[attr-defined]
    return found


def test_only_one_module_spells_the_names_of_a_run_folder():
    files = [file for top in ("qa_lm", "scripts") for file in (ROOT / top).rglob("*.py")]
    found = [place for file in files if file != Path(names.__file__) for place in spelled(file)]
    assert found == []
    assert len(spelled(Path(names.__file__))) > 15
