"""Runs end as they were recorded: see `tests.golden.runs`."""

from typing import Any

import pytest

from tests.golden.runs import RUNS, SLOW, command_line, golden, results

LOSS = 1e-3
"""Relative difference of losses that another processor may make."""


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in RUNS]
)
def test_a_run_ends_as_recorded(script, tmp_path, name):
    done = script("train.py", *command_line(name, tmp_path / "run"))
    assert done.returncode == 0, done.stderr
    now, then = results(tmp_path / "run"), golden(name)
    if now["machine"] == then["machine"]:
        assert now == then
    assert len(now["epochs"]) == len(then["epochs"])
    for row, recorded in zip(now["epochs"], then["epochs"], strict=True):
        assert row == pytest.approx(recorded, rel=LOSS)
    assert now["answers"] == then["answers"]
    assert counts(now["board"]) == counts(then["board"])


def counts(board: dict[str, Any]) -> list[tuple[str, int, float]]:
    """The rows of a board without the measures that another processor changes in their last digits."""
    return [(row["name"], row["n"], row["exact_match"]["value"]) for row in board["rows"]]
