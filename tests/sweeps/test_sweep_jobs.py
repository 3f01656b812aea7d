"""What a sweep's folder holds: jobs, what was swept, what they are judged by."""

import csv
import json

import pytest

from qa_lm.errors import UserError
from qa_lm.reporting.sweep.findings import compare_jobs
from qa_lm.reporting.sweep.jobs import label, read_sweep
from qa_lm.reporting.sweep.knobs import SEED, design
from qa_lm.reporting.sweep.next import next_steps
from qa_lm.reporting.sweep.report import write_sweep_report
from tests.reporting.report_pages import Page
from tests.sweeps.sweep_example import SHARED, failed_job, grid, job


def test_knobs_are_what_was_given(tmp_path):
    layout = design(read_sweep(grid(tmp_path)))
    assert [(knob.key, knob.name, knob.levels) for knob in layout.knobs] == [
        ("optimizer", "optimizer", ["adamw", "muon"]),
        ("optimizer.lr", "lr", ["0.001", "0.003", "0.01"]),
    ]
    assert layout.knobs[1].numbers == [0.001, 0.003, 0.01]
    assert layout.determined == {"optimizer": ["optimizer.kind", "optimizer.warmup_steps"]}
    assert layout.places["9"] == ("muon", "0.001")
    assert layout.seeds["10"] == "2"


def test_knobs_are_found_without_the_launchers_word(tmp_path):
    layout = design(read_sweep(grid(tmp_path, recorded=False)))
    assert [knob.key for knob in layout.knobs] == ["optimizer.kind", "optimizer.lr"]
    assert layout.determined == {"optimizer.kind": ["optimizer.warmup_steps"]}
    assert layout.unexplained == []


def test_the_sweeps_command_separates_a_knob_from_what_it_determines(tmp_path):
    for number, (width, rate) in enumerate([(64, 0.1), (128, 0.2), (256, 0.3)]):
        job(tmp_path, number, 2.0, model={"hidden_size": width}, optimizer={"lr": rate})
    assert [knob.key for knob in design(read_sweep(tmp_path)).knobs] == ["model.hidden_size"]
    (tmp_path / "multirun.yaml").write_text(
        "hydra: {overrides: {task: ['experiment=recall', 'optimizer.lr=0.1,0.2,0.3']}}"
    )
    layout = design(read_sweep(tmp_path))
    assert [knob.key for knob in layout.knobs] == ["optimizer.lr"]
    assert layout.determined == {"optimizer.lr": ["model.hidden_size"]}


def test_the_split_seed_is_a_knob_unless_it_is_the_seed(tmp_path):
    for seed in (1, 2, 3):
        job(tmp_path / "own", seed, 2.0, 7, data={"split_seed": seed})
        job(tmp_path / "same", seed, 2.0, seed, data={"split_seed": seed})
    assert [knob.key for knob in design(read_sweep(tmp_path / "own")).knobs] == ["data.split_seed"]
    layout = design(read_sweep(tmp_path / "same"))
    assert layout.knobs == []
    assert layout.determined == {SEED: ["data.split_seed"]}


def test_what_no_knob_explains_is_said(tmp_path):
    for number, rows in enumerate((16, 32, 16, 16)):
        rate = (0.1, 0.2)[number // 2]
        job(tmp_path, number, 2.0, number % 2, [f"optimizer.lr={rate}"], data={"batch_size": rows})
    assert design(read_sweep(tmp_path)).unexplained == ["data.batch_size"]
    write_sweep_report(tmp_path)
    said = "Other settings that differ, and may confound the comparison: data.batch_size."
    assert said in Page(tmp_path / "report.html").text


@pytest.mark.parametrize(
    ("command", "program"), [("qa-lm train", "qa-lm train"), ("train.py", "python scripts/train.py")]
)
def test_commands_start_as_the_jobs_were_started(tmp_path, command, program):
    sweep = grid(tmp_path, seeds=[1])
    for name in ("3", "4"):  # some jobs may have failed before they wrote theirs
        (sweep / name / "environment.json").write_text(json.dumps({"command": [command, "seed=1"]}))
    (line,) = next_steps(compare_jobs(read_sweep(sweep)))[0].commands
    assert line.startswith(f"{program} -m experiment=recall ")


def test_numbers_written_in_two_ways_are_one_level():
    assert label("3e-3") == label(0.003) == label("0.003") == "0.003"
    assert label("5e-05") == label(5e-5)
    assert [label(value) for value in (10, 10.0, True, None, "muon", [0.9, 0.95])] == [
        *("10", "10", "true", "null", "muon", "[0.9, 0.95]")
    ]


def test_jobs_come_by_number(tmp_path):
    for name in ("10", "2", "b", "1", "a10", "a9"):
        job(tmp_path, name, 1.0)
    assert [each.name for each in read_sweep(tmp_path).jobs] == ["1", "2", "10", "a9", "a10", "b"]


def test_broken_jobs_are_lines_of_the_report(tmp_path):
    sweep = grid(tmp_path)
    failed_job(sweep, 18, [*SHARED, "optimizer=muon", "optimizer.lr=0.03", "seed=1"], "ValueError: no <such> file")
    failed_job(sweep, 19, None)
    (sweep / "16" / "metrics.json").write_text('{"best_val_loss": 2.')
    (sweep / "16" / "config.yaml").write_text("a: [1, ")
    (sweep / "17" / "metrics.csv").write_text("epoch,val_loss\n1,2.0\n2,1.e,7,8\n")
    job(sweep, 20, None, 1, [*SHARED, "optimizer=muon", "optimizer.lr=0.1", "seed=1"], optimizer={"lr": 0.1})
    (sweep / "notes").mkdir()
    findings = compare_jobs(read_sweep(sweep))
    states = {each.name: each.state for each in findings.sweep.jobs}
    assert (states["16"], states["18"], states["19"], states["20"]) == ("failed", "failed", "unfinished", "finished")
    assert "notes" not in states
    assert findings.sweep.jobs[18].error == "ValueError: no <such> file"
    write_sweep_report(sweep)
    page = Page(sweep / "report.html")
    assert "ValueError: no <such> file" in page.text
    assert "RuntimeError: boom" in page.text
    with (sweep / "results.csv").open(encoding="utf-8", newline="") as file:
        assert [row["error"] for row in csv.DictReader(file)][18] == "ValueError: no <such> file"
    assert findings.measured[0].place == ("muon", "0.003")
    assert [group.place for group in findings.groups if not group.estimate] == [("muon", "0.03"), ("muon", "0.1")]


def test_the_objective_is_what_the_runs_followed(tmp_path):
    for number, value in enumerate((0.5, 0.9)):
        job(tmp_path, number, 2.0, metrics={"recall": value}, monitor="train/recall", optimizer={"lr": number})
    findings = compare_jobs(read_sweep(tmp_path))
    assert findings.objective.outcome.name == "recall"
    assert findings.measured[0].place == ("1",)
    assert compare_jobs(read_sweep(tmp_path), "best_val_loss").objective.outcome.smaller_is_better
    assert compare_jobs(read_sweep(tmp_path), "recall", "min").measured[0].place == ("0",)
    with pytest.raises(UserError, match="no job has this metric; available: best_epoch, best_val_loss, "):
        compare_jobs(read_sweep(tmp_path), "accuracy")


def test_where_all_reached_their_recall_time_decides(tmp_path):
    for number in range(2):
        job(tmp_path, number, 2.0, monitor="train/recall", stop_at_recall=0.95, optimizer={"lr": number})
    assert compare_jobs(read_sweep(tmp_path)).objective.outcome.name == "fit_seconds"
    job(tmp_path, 2, 2.0, metrics={"final_train_recall": 0.9}, monitor="train/recall", stop_at_recall=0.95)
    assert compare_jobs(read_sweep(tmp_path)).objective.outcome.name == "recall"


def test_without_validation_recall_decides(tmp_path):
    for number in range(2):
        job(tmp_path, number, None, optimizer={"lr": number})
    assert compare_jobs(read_sweep(tmp_path)).objective.outcome.name == "recall"
