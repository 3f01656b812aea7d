"""Reports on what the launchers for clusters leave behind: no job.json, and a worker's command in environment.json."""

import json
from pathlib import Path

import pytest
import yaml

from qa_lm.reporting.run.facts import reproduction
from qa_lm.reporting.sweep.findings import compare_jobs
from qa_lm.reporting.sweep.jobs import read_sweep
from qa_lm.reporting.sweep.next import commands
from qa_lm.run.reader import read_run
from tests.reporting.report_example import ENVIRONMENT, run_folder
from tests.sweeps.sweep_example import job

COMMANDS = {
    "submitit": ["_submit.py", "sweep/lr=1/.submitit/%j"],
    "ray": ["default_worker.py", "--node-ip-address=127.0.0.1", "--startup-token=1"],
}
LOSSES = [(0.001, 1, 2.0), (0.001, 2, 2.4), (0.003, 1, 2.5), (0.003, 2, 2.1)]
"""Learning rate, seed and loss of each job."""


@pytest.fixture(params=COMMANDS)
def sweep(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    for number, (rate, seed, loss) in enumerate(LOSSES):
        folder = job(tmp_path, number, loss, seed, optimizer={"lr": rate})
        (folder / "environment.json").write_text(json.dumps({"command": COMMANDS[request.param]}))
    task = ["data.path=faq.jsonl", "optimizer.lr=1e-3,3e-3", "seed=1,2", "resume=auto"]
    (tmp_path / "multirun.yaml").write_text(yaml.safe_dump({"hydra": {"overrides": {"task": task}}}))
    return tmp_path


def test_the_swept_setting_is_found(sweep):
    findings = compare_jobs(read_sweep(sweep))
    assert [knob.key for knob in findings.design.knobs] == ["optimizer.lr"]
    assert sorted(len(group.jobs) for group in findings.groups) == [2, 2]
    (command,) = commands(findings, [("0.001",), ("0.003",)], "3")
    assert command == "python scripts/train.py -m data.path=faq.jsonl resume=auto optimizer.lr=0.001,0.003 seed=3"


@pytest.mark.parametrize("launcher", COMMANDS)
def test_a_run_names_no_command_that_would_not_make_it(tmp_path, launcher):
    folder = run_folder(tmp_path, environment=ENVIRONMENT | {"command": COMMANDS[launcher]})
    assert reproduction(read_run(folder)) == ("", [])
