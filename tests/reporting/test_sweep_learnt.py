"""The sweep's report where there is little to compare: nothing learnt, few seeds, jobs that stopped early."""

import re
import shutil
from pathlib import Path

from qa_lm.reporting.sweep.findings import compare_jobs
from qa_lm.reporting.sweep.jobs import read_sweep
from qa_lm.reporting.sweep.next import next_steps
from qa_lm.reporting.sweep.report import write_sweep_report
from qa_lm.reporting.sweep.verdict import conclusion
from tests.reporting.report_pages import Page
from tests.reporting.test_sweep_report import plain
from tests.sweeps.sweep_example import SHARED, grid, job

RING = "stroke: currentColor"
"""How the page draws the ring around the best mark, and nothing else."""


def floor(root: Path, *shared: str, recall: float = 0.0) -> Path:
    """Two rates by two seeds; the second rate ends with the smaller train loss."""
    for number in range(4):
        rate, seed = (0.001, 0.003)[number // 2], number % 2
        given = [*shared, f"optimizer.lr={rate}", f"seed={seed}"]
        found = {"recall": recall, "final_train_loss": 3.0 - rate * 100, "stopped_early": False}
        job(root, number, 2.0 + number / 10, seed, given, 12, found, monitor="train/recall", optimizer={"lr": rate})
    return root


def test_where_nothing_was_learnt_there_is_no_best(tmp_path):
    sweep = floor(tmp_path, *SHARED, "trainer.max_epochs=12")
    printed = " ".join(write_sweep_report(sweep).split())
    assert "Nothing was learnt: recall is 0.0% in all 4 jobs." in printed
    longer = "train.py experiment=recall data.path=faq.jsonl optimizer.lr=0.003 trainer.max_epochs=60"
    for text in (printed, Page(sweep / "report.html").text, plain(sweep)):
        assert longer in text
        for word in ("best", "verdict", "noise", "ring"):
            assert not re.search(rf"\b{word}\b", text.replace("its best epoch", ""), re.IGNORECASE), word
    assert RING not in (sweep / "report.html").read_text()


def test_where_nothing_was_learnt_the_recipe_for_that_is_next(tmp_path):
    sweep = floor(tmp_path, "data=file", "data.path=faq.jsonl", "model=tiny")
    (step,) = next_steps(compare_jobs(read_sweep(sweep)))
    assert step.commands == ["python scripts/train.py experiment=recall data=file data.path=faq.jsonl"]


def test_a_metric_that_was_asked_for_is_compared_where_nothing_was_learnt_too(tmp_path):
    sweep = floor(tmp_path, *SHARED)
    write_sweep_report(sweep)
    before = (sweep / "report.html").read_bytes()
    printed = write_sweep_report(sweep, "best_val_loss")
    assert printed.endswith(str(sweep / "report-best_val_loss.html"))
    assert "Nothing was learnt" in printed
    assert "Best by validation loss: lr=0.001" in printed
    assert RING in (sweep / "report-best_val_loss.html").read_text()
    assert "The charts are in report-best_val_loss.html" in plain(sweep, "report-best_val_loss.md")
    assert (sweep / "report.html").read_bytes() == before


def test_a_little_recall_is_something_learnt(tmp_path):
    findings = compare_jobs(read_sweep(floor(tmp_path, *SHARED, recall=0.01)))
    assert "Nothing was learnt" not in " ".join(conclusion(findings))


def test_below_three_seeds_nothing_is_tested(tmp_path):
    sweep = grid(tmp_path, noise=0.001, seeds=[1, 2])
    findings = compare_jobs(read_sweep(sweep))
    assert conclusion(findings)[2:] == ["No difference was tested: a test needs 3 seeds of each setting."]
    printed = " ".join(write_sweep_report(sweep).split())
    assert "not tested: fewer than 3 seeds" in printed
    assert "significantly" not in Page(sweep / "report.html").text
    step = next_steps(findings)[0]
    assert step.text.startswith(
        "A significance test needs 3 seeds of each setting: 1 more seed for 6 settings (6 jobs, about "
    )
    assert step.commands[0].endswith("optimizer=muon,adamw optimizer.lr=0.003,0.001,0.01 seed=3")


def test_only_settings_with_three_seeds_are_tested(tmp_path):
    sweep = grid(tmp_path, noise=0.001)
    shutil.rmtree(sweep / "0")  # adamw, 0.001, seed 1
    findings = compare_jobs(read_sweep(sweep))
    by_place = {each.other: each.difference.significant for each in findings.against_best}
    assert by_place["adamw", "0.001"] is None
    assert [found for place, found in by_place.items() if place != ("adamw", "0.001")] == [True] * 4


def test_jobs_that_stopped_early_are_marked_and_budgets_are_called_unequal(tmp_path):
    for number in range(6):
        rate, early = (0.001, 0.003)[number // 3], number > 3
        given, record = [f"optimizer.lr={rate}", f"seed={number % 3}"], {"stopped_early": early}
        job(tmp_path, number, 2.0, number % 3, given, 6 if early else 15, record, optimizer={"lr": rate})
    write_sweep_report(tmp_path)
    for text in (Page(tmp_path / "report.html").text, plain(tmp_path)):
        assert "Training budgets are unequal: 2 of 6 jobs stopped early: lr=0.003 (2 jobs)." in text
    rows = [line for line in plain(tmp_path, lines=True).splitlines() if line.startswith("|")]
    assert sum("| finished (stopped early) |" in row for row in rows) == 2
    assert [row for row in rows if row.startswith("| 0.003 | 3 (2 stopped early) |")]


def test_a_job_that_reached_its_recall_is_no_smaller_budget(tmp_path):
    for number in range(2):
        record = {"stopped_early": True, "final_train_recall": 1.0}
        given = [f"optimizer.lr={number}"]
        job(tmp_path, number, 2.0, 1, given, 6 + number, record, stop_at_recall=0.99, optimizer={"lr": number})
    findings = compare_jobs(read_sweep(tmp_path))
    assert [job.early_end for job in findings.sweep.jobs] == ["recall reached"] * 2
    assert "unequal" not in " ".join(conclusion(findings))
