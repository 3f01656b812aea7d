"""Jobs that are forked from one process: they begin and end as new processes do, and do not depend on that process."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from qa_lm.sweeps.processes import fork_server
from qa_lm.sweeps.processes.forks import can_fork
from tests.conftest import ROOT
from tests.documented import QUICK
from tests.sweeps.processes import Sweeps, sweeps, wait_until

__all__ = ["sweeps"]

AFRESH = "hydra.launcher.fork=false"
THREAD = "import threading, time\nthreading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n"


def server_of(sweep: "subprocess.Popen[str]") -> psutil.Process:
    """The process that forks the jobs of a sweep."""
    found: list[psutil.Process] = []

    def has_started() -> bool:
        found[:] = [each for each in psutil.Process(sweep.pid).children() if fork_server.__file__ in each.cmdline()]
        return bool(found)

    wait_until(has_started)
    return found[0]


def module(sweeps: Sweeps, source: str) -> None:
    """Let the process that forks import a module."""
    (sweeps.folder / "imported_first.py").write_text(source)
    sweeps.environment |= {"MODULES": "imported_first", "PYTHONPATH": f"{ROOT}:{sweeps.folder}"}


def told(sweeps: Sweeps, folder: str) -> list[dict[str, object]]:
    return [json.loads(path.read_text()) for path in sorted(sweeps.folder.glob(f"{folder}/*/told.json"))]


def test_jobs_end_as_new_processes_do(sweeps):
    arguments = ["mode=well,raise,kill,crash,exit,say,leave", "hydra.launcher.jobs=2", "pause=0.01"]
    assert sweeps.run(*arguments).returncode == 6
    forked = {path.parent.name: path for path in sweeps.records()}
    assert sweeps.run(*arguments, AFRESH, "hydra.sweep.dir=afresh").returncode == 6
    codes = {}
    for name, path in forked.items():
        other = sweeps.folder / "afresh" / name
        codes[name.rpartition("_")[0]] = json.loads(path.read_text())["exit_code"]
        assert json.loads((other / "job.json").read_text())["exit_code"] == json.loads(path.read_text())["exit_code"]
        logs = [(each / "job.log").read_text().splitlines()[1:] for each in (path.parent, other)]
        assert logs[0] == logs[1], name
    assert {key.removeprefix("mode-"): code for key, code in codes.items()} == {
        **{"well": 0, "raise": 1, "kill": -signal.SIGKILL, "crash": -signal.SIGSEGV, "exit": 3, "say": 1, "leave": 5}
    }


@pytest.mark.parametrize("jobs", [1, 2])
def test_jobs_begin_as_new_processes_do(sweeps, jobs):
    arguments = ["mode=tell", "seed=1,2", f"hydra.launcher.jobs={jobs}"]
    assert sweeps.run(*arguments).returncode == 0
    assert sweeps.run(*arguments, AFRESH, "hydra.sweep.dir=afresh").returncode == 0
    forked, afresh = told(sweeps, "sweep"), told(sweeps, "afresh")
    assert len(forked) == len(afresh) == 2
    assert len({each.pop("random") for each in (*forked, *afresh)}) == 4
    servers, sweep = ({each.pop("parent") for each in group} for group in (forked, afresh))
    assert len(servers) == len(sweep) == 1
    assert servers != sweep
    texts = [
        json.dumps(group).replace(f"{sweeps.folder}/afresh", f"{sweeps.folder}/sweep") for group in (forked, afresh)
    ]
    assert json.loads(texts[0]) == json.loads(texts[1])


@pytest.mark.parametrize(
    "arguments",
    [["seed=1"], ["seed=1,2", AFRESH], ["seed=1,2", "+hydra.job.env_set.OMP_NUM_THREADS=1"]],
    ids=["one", "off", "threads"],
)
def test_jobs_are_new_processes_where_forks_gain_nothing_or_are_not_wanted(sweeps, arguments):
    process = sweeps.start("mode=tell", *arguments)
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert {each["parent"] for each in told(sweeps, "sweep")} == {process.pid}


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (THREAD, "the process that forks has 2 threads"),
        ("import no_such_module", "imported_first cannot be imported: No module named 'no_such_module'"),
        ("import os; os._exit(1)", "the process that forks them has ended"),
    ],
    ids=["threads", "import", "exit"],
)
def test_jobs_are_new_processes_where_none_can_be_forked(sweeps, source, reason):
    module(sweeps, source)
    process = sweeps.start("mode=tell", "seed=1,2,3", "hydra.launcher.jobs=2")
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert errors == f"note: jobs start as new processes: {reason}\n"
    assert [each["parent"] for each in told(sweeps, "sweep")] == [process.pid] * 3


def test_a_thread_that_starts_later_ends_the_forks_and_no_job(sweeps):
    """The first job runs on while later ones start as new processes."""
    module(sweeps, "import os, signal\nsignal.signal(signal.SIGUSR1, lambda *_: exec(os.environ['LATER']))\n")
    sweeps.environment["LATER"] = THREAD
    process = sweeps.start("seed=1,2,3", "steps=4", "pause=0.25", "hydra.launcher.jobs=1")
    sweeps.wait_for_steps(1)
    server_of(process).send_signal(signal.SIGUSR1)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0
    assert errors == "note: jobs start as new processes: the process that forks has 2 threads\n"
    assert set(sweeps.states().values()) == {"finished"}


def test_without_the_process_that_forks_its_jobs_are_killed_and_the_others_run(sweeps):
    process = sweeps.start("seed=1,2,3,4", "mode=hang_once", "hydra.launcher.jobs=2")
    sweeps.wait_for_steps(2)
    jobs = server_of(process).children()
    server_of(process).kill()
    wait_until(lambda: len(sweeps.step_files()) == 4)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 143
    assert len(jobs) == 2
    assert not any(each.is_running() and each.status() != psutil.STATUS_ZOMBIE for each in jobs)
    assert "note: jobs start as new processes: the process that forks them has ended\n" in errors
    codes = [record["exit_code"] for record in sweeps.jobs().values()]
    assert codes == [-signal.SIGKILL, -signal.SIGKILL, 143, 143]
    assert sweeps.run("seed=1,2,3,4", "mode=hang_once", "hydra.launcher.jobs=2").returncode == 0
    assert set(sweeps.starts().values()) == {2}


def test_the_process_that_forks_ends_with_its_sweep(sweeps):
    process = sweeps.start("seed=1,2,3", "mode=hang_once", "hydra.launcher.jobs=2")
    sweeps.wait_for_steps(2)
    server = server_of(process)
    jobs = server.children()
    server.terminate()
    server.send_signal(signal.SIGINT)
    assert server.is_running()
    process.kill()
    process.communicate()
    wait_until(lambda: not server.is_running(), 10)
    assert [each.status() != psutil.STATUS_ZOMBIE for each in jobs] == [True, True]
    for each in jobs:
        each.kill()


def test_a_signal_while_modules_are_imported_stops_the_sweep(sweeps):
    module(sweeps, "import time\ntime.sleep(60)\n")
    process = sweeps.start("seed=1,2")
    server = server_of(process)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 143
    assert errors.splitlines()[:3] == [
        *("stopped: done 0, running 0, failed 0, remaining 2 of 2", "  seed=1: not started", "  seed=2: not started")
    ]
    assert not server.is_running()


def test_nothing_is_imported_where_nothing_is_left_to_run(sweeps):
    assert sweeps.run("seed=1,2").returncode == 0
    module(sweeps, f"open({str(sweeps.folder / 'imported')!r}, 'w')")
    assert sweeps.run("seed=1,2").returncode == 0
    assert not (sweeps.folder / "imported").exists()
    assert sweeps.run("seed=1,2,3").returncode == 0
    assert (sweeps.folder / "imported").exists()


def test_only_scripts_and_modules_are_forked():
    assert can_fork(["scripts/train.py"])
    assert can_fork(["-m", "qa_lm.cli", "train"])
    assert not can_fork(["-X", "dev", "scripts/train.py"])
    assert not can_fork(["-c", "print()"])
    assert not can_fork(["program.zip"])


SCRIPT = """
import json, os, sys, time
from dataclasses import dataclass
from pathlib import Path
import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from qa_lm.config.hydra_settings import register_sweep_settings
from qa_lm.sweeps.plugins import register_plugins

@dataclass
class Settings:
    seed: int = 0

ConfigStore.instance().store(name="settings", node=Settings)

@hydra.main(version_base="1.3", config_path=None, config_name="settings")
def run(settings):
    import numpy, torch
    from threadpoolctl import threadpool_info
    found = {
        "torch": torch.get_num_threads(),
        "pools": sorted((each["internal_api"], each["num_threads"]) for each in threadpool_info()),
        "torch_random": torch.rand(()).item(),
        "product": (torch.ones(300, 300) @ torch.ones(300, 300)).sum().item(),
        "numpy": numpy.random.rand(),
    }
    Path(HydraConfig.get().runtime.output_dir, "told.json").write_text(json.dumps(found))

if __name__ == "__main__":
    register_sweep_settings()
    register_plugins(lambda task: str(task), modules=["numpy", "torch"])
    run()
"""


@pytest.mark.slow
@pytest.mark.parametrize("threads", [None, "1"])
def test_threads_and_random_numbers_are_those_of_new_processes(sweeps, threads):
    if threads:
        sweeps.environment["OMP_NUM_THREADS"] = threads
    (sweeps.folder / "script.py").write_text(SCRIPT)
    command = [sys.executable, "script.py", "-m", "hydra/launcher=processes", "hydra.launcher.resume=null", "seed=1,2"]
    found = []
    for jobs in (1, 2):
        for name, how in (("forked", "hydra.launcher.fork=true"), ("afresh", AFRESH)):
            arguments = [f"hydra.sweep.dir={name}{jobs}", f"hydra.launcher.jobs={jobs}", how]
            done = sweeps.run(*arguments, command=command)
            assert (done.returncode, done.stderr) == (0, "")
            found.append(told(sweeps, f"{name}{jobs}"))
    for name in ("numpy", "torch_random"):
        assert len({each.pop(name) for group in found for each in group}) == 8
    assert found[0] == found[1]
    assert found[2] == found[3]
    assert threads is None or found[0][0]["torch"] == found[2][1]["torch"] == 1


@pytest.mark.slow
def test_trainings_are_bit_for_bit_those_of_new_processes(sweeps):
    train = [sys.executable, str(ROOT / "scripts" / "train.py"), "-m", *QUICK, "seed=1,2", "hydra.launcher.jobs=2"]
    assert sweeps.run("hydra.sweep.dir=sweep", command=train).returncode == 0
    assert sweeps.run("hydra.sweep.dir=afresh", AFRESH, command=train).returncode == 0
    for path in sweeps.records():
        other = sweeps.folder / "afresh" / path.parent.name
        names = [{each.name.split(".tfevents")[0] for each in folder.iterdir()} for folder in (path.parent, other)]
        assert names[0] == names[1]
        for name in ("answers.jsonl", "model/model.safetensors", "config.yaml"):
            assert (path.parent / name).read_bytes() == (other / name).read_bytes(), name
        columns = [_losses(each / "metrics.csv") for each in (path.parent, other)]
        assert columns[0] == columns[1]
        for folder in (path.parent, other):  # the seconds of a run are those of its process
            metrics, record = (json.loads((folder / name).read_text()) for name in ("metrics.json", "job.json"))
            assert 0 < metrics["seconds"] < record["seconds"]


def _losses(path: Path) -> list[list[str]]:
    return [line.split(",")[:6] for line in path.read_text().splitlines()]
