"""One process, DDP, FSDP2 and torchrun train the same run: losses, gradient norms, weights, optimizer states, ledger,
results table and answers to 1e-5 or, of single pairs, 1e-4."""

import shutil
from pathlib import Path

import pytest

from tests.training.distributed.equality import CASES, NORMS, PRETRAINED, assert_same_run, command
from tests.training.distributed.launchers import torchrun

STRATEGIES = ("ddp", "fsdp2")
TWO = "trainer.devices=2"


@pytest.fixture(autouse=True)
def norms(tmp_path: Path) -> None:
    (tmp_path / "norms.py").write_text(NORMS)


@pytest.mark.parametrize(
    "case", [name if name == "packed" else pytest.param(name, marks=pytest.mark.slow) for name in CASES]
)
def test_two_processes_train_as_one_does(script, tmp_path, case):
    done = script("train.py", *command(CASES[case], "one"))
    assert done.returncode == 0, done.stderr
    for strategy in STRATEGIES:
        done = script("train.py", *command(CASES[case], strategy, 2), TWO, f"trainer.strategy={strategy}")
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("epoch 3/3") == 1
        assert_same_run(tmp_path / "one", tmp_path / strategy)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["full", "lora"])
def test_two_processes_finetune_as_one_does(learnt_run, script, tmp_path, method):
    shutil.copytree(learnt_run.folder / "model", tmp_path / "base")
    finetune = [*PRETRAINED, f"finetune={method}"]
    done = script("train.py", *finetune, "data.batch_size=2", "hydra.run.dir=one")
    assert done.returncode == 0, done.stderr
    for strategy in STRATEGIES:
        more = ("data.batch_size=1", TWO, f"trainer.strategy={strategy}", f"hydra.run.dir={strategy}")
        done = script("train.py", *finetune, *more)
        assert done.returncode == 0, done.stderr
        assert_same_run(tmp_path / "one", tmp_path / strategy)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_two_nodes_train_as_one_process_does(script, tmp_path, strategy):
    """torchrun says how many processes there are, so that nobody has to."""
    done = script("train.py", *command(CASES["packed"], "one"))
    assert done.returncode == 0, done.stderr
    nodes = torchrun(tmp_path, *command(CASES["packed"], "two", 2), f"trainer.strategy={strategy}")
    assert [code for code, _ in nodes] == [0, 0], nodes
    assert_same_run(tmp_path / "one", tmp_path / "two")
    assert "devices" not in (tmp_path / "two" / "config.yaml").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("case", ["packed", "padded", "muon", "tied"])
def test_a_run_goes_on_with_another_number_of_processes(script, tmp_path, case):
    """One process, then two with shards, two with replicas, and one: as if one had trained all epochs."""
    done = script("train.py", *command(CASES[case], "one"), "trainer.max_epochs=4")
    assert done.returncode == 0, done.stderr
    done = script("train.py", *command(CASES[case], "run"), "trainer.max_epochs=1")
    assert done.returncode == 0, done.stderr
    for epochs, devices, strategy in ((2, 2, "fsdp2"), (3, 2, "ddp"), (4, 1, "auto")):
        more = (f"trainer.max_epochs={epochs}", f"trainer.devices={devices}", f"trainer.strategy={strategy}")
        done = script("train.py", "resume=run", "trust=norms", *more)
        assert done.returncode == 0, done.stderr
    assert_same_run(tmp_path / "one", tmp_path / "run")


def test_a_step_that_cannot_be_divided_is_refused(script, tmp_path):
    done = script("train.py", *command(CASES["packed"], "run", rows=3), "trainer.max_epochs=1")
    assert done.returncode == 0, done.stderr
    done = script("train.py", "resume=run", "trust=norms", "trainer.max_epochs=2", TWO, "trainer.strategy=ddp")
    assert done.returncode == 2
    assert done.stderr == (
        "error: a step of this run has 3 rows, which cannot be divided among 2 processes; choose another number of "
        "them\n"
    )
