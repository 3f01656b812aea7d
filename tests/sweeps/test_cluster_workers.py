"""A job in the worker of a cluster's launcher: what went wrong is raised, to be told where the sweep was started.

Here, too, `main` was not called.
"""

import errno
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import open_dict

from qa_lm.config.compose import register_schema
from qa_lm.errors import JobFailed, OutOfMemory, UserError
from tests.config.test_configuration import CONF
from tests.scripts_as_modules import train


@pytest.fixture
def job(tmp_path, monkeypatch):
    """The configuration of a job, as Hydra hands it to a worker."""
    register_schema()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        composed = compose("train", ["model=tiny"], return_hydra_config=True)
    with open_dict(composed):
        composed.hydra.runtime.output_dir = str(tmp_path)
    monkeypatch.setattr(HydraConfig.instance(), "cfg", None)
    HydraConfig.instance().set_config(composed)
    monkeypatch.setattr(train, "ended", [])
    return composed


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (UserError("seed=-1: must be positive"), UserError("seed=-1: must be positive")),
        (OutOfMemory("lower data.batch_size"), JobFailed("lower data.batch_size")),
        (OSError(errno.ENOSPC, "No space left on device", "x"), JobFailed("x: No space left on device")),
    ],
)
def test_what_the_user_can_mend_is_raised_in_its_own_words(job, monkeypatch, capsys, error, raised):
    monkeypatch.setattr(train, "_train", _raising(error))
    with pytest.raises(type(raised)) as told:
        train.run(job)
    assert str(told.value) == str(raised)
    assert capsys.readouterr().err == f"error: {raised}\n"


def test_a_mistake_of_ours_leaves_its_traceback_where_it_happened(job, monkeypatch, capsys):
    monkeypatch.setattr(train, "_train", _raising(ZeroDivisionError("ours")))
    with pytest.raises(ZeroDivisionError):
        train.run(job)
    assert "Traceback" in capsys.readouterr().err


def test_a_run_that_diverged_is_a_failed_job(job, monkeypatch):
    over = SimpleNamespace(message="this run diverged", diverged=True)
    monkeypatch.setattr("qa_lm.training.checkpointing.resume.completed_run", lambda *arguments: over)
    monkeypatch.setattr(train, "read_config", lambda path: None)
    monkeypatch.setattr(train, "resumed_config", lambda folder, config, overrides: config)
    folder = Path(HydraConfig.get().runtime.output_dir)
    (folder / "config.yaml").touch()
    with open_dict(job):
        del job["hydra"]
    job.resume = "auto"
    with pytest.raises(JobFailed, match="this run diverged"):
        train.run(job)


@pytest.mark.parametrize("error", [UserError("no"), OutOfMemory("no")])
def test_where_the_script_itself_runs_nothing_is_raised(job, monkeypatch, error):
    monkeypatch.setattr(train, "_train", _raising(error))
    monkeypatch.setattr(train, "_is_main", True)
    assert train.run(job) != train.run(job), "nan"
    assert len(train.ended) == 2


def test_a_failed_job_is_a_line_and_exit_code_1(monkeypatch, capsys):
    monkeypatch.setattr(train.hydra, "main", lambda **how: lambda run: _raising(JobFailed("diverged")))
    monkeypatch.setattr(train, "_is_main", False)  # which main sets, and monkeypatch puts back
    monkeypatch.setattr(sys, "argv", ["train.py", "model=tiny"])
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")  # which main sets
    assert train.main() == 1
    assert capsys.readouterr().err == "error: diverged\n"


def _raising(error):
    def call(*arguments):
        raise error

    return call
