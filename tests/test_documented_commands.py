"""Every command that README.md and docs/ show runs."""

import re
import shlex
from pathlib import Path

import pytest
from _pytest.mark import ParameterSet

from tests.conftest import ROOT
from tests.documented import QUICK, documented_commands
from tests.serving.served import served
from tests.sweeps.sweep_example import grid


def test_the_other_documented_commands_are_there():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    others = [command.split() for command in documented_commands(ours=False)]
    assert len(others) >= 4
    for words in others:
        if words[0] == "make":
            assert words[1] in targets
        else:
            assert words[:-1] == [".venv/bin/tensorboard", "--logdir"], words


def test_the_pages_have_commands_to_run():
    assert len(documented_commands(ours=True)) >= 24


SMALL = {
    "tutorial": ["--rounds=1", "--epochs=1"],
    "data": ["--rounds=1"],
    "recall": ["--rounds=1", "--counts", "8"],
    "roof": ["--rounds=1", "--tokens=64", "--models", "d64 L1 V300"],
    "eval": ["--rounds=1", "--count=8"],
    "finetune": ["--rounds=1", "--pairs", "8", "2"],
    "trim": ["--rounds=1", "--pairs", "8", "2", "--epochs=1"],
    "serve": ["--rounds=1", "--seconds=0.3"],
    "budget": ["--rounds=1", "--count=8", "--budgets", "40s"],
    "faq": ["--seeds=1", "--files", str(ROOT / "scripts" / "benchmarks" / "faq" / "shop.jsonl")],
}
"""By part of benchmark.py, options that make it small. Each starts processes that import torch anew."""
FROM_SCRATCH = ("model", "tokenizer", "optimizer=")
"""Beginnings of settings that a pretrained model has itself."""
SLOW = (
    "verify_resume.py",
    "hydra/sweeper=optuna",
    "experiment=capitals",
    "sweep=learning_rate",
    "trainer=ddp",
    "trainer=fsdp2",
    *(f"benchmark.py {part}" for part in SMALL),
)
"""In commands that take more than a few seconds even when they are made small."""


def as_parameters(commands: list[str]) -> list[ParameterSet]:
    """All but the sweep of learning rates and the servers, which have their own tests."""
    rest = [each for each in commands if " -m optimizer.lr=" not in each and "serve.py" not in each]
    return [
        pytest.param(each, marks=[pytest.mark.slow] if any(words in each for words in SLOW) else ()) for each in rest
    ]


def made_small(command: str, run: Path, folder: Path) -> list[str]:
    """The arguments of a documented command, for ten pairs, a tiny model, and a run or a sweep that is there."""
    words = shlex.split(command)
    name = Path(words[1]).name
    arguments = [word.replace("RUN_FOLDER", str(run)).replace("MODEL_FOLDER", str(run / "model")) for word in words[2:]]
    if name == "sweep_report.py":
        return [str(grid(folder))]
    if name == "verify_resume.py":
        return ["--times", "1", *QUICK]
    if name == "benchmark.py":
        return arguments + SMALL[arguments[0]]
    if name == "train.py" and not arguments[0].startswith("resume="):
        large = ("model=", "trainer.max_epochs=", "hydra.sweeper.n_trials=")
        quick = [word for word in QUICK if "experiment=finetune" not in arguments or not word.startswith(FROM_SCRATCH)]
        arguments = [word for word in arguments if not word.startswith(large)] + quick
        if "hydra/sweeper=optuna" in arguments:
            arguments += ["hydra.sweeper.n_trials=1"]
        if any(word.startswith("sweep=") for word in arguments):
            arguments += ["optimizer.lr=1e-4", "seed=1"]  # one job is enough
    return arguments


@pytest.mark.parametrize("command", as_parameters(documented_commands(ours=True)))
def test_every_documented_command_runs(small_run, script, tmp_path, command):
    (tmp_path / "pairs.jsonl").write_text((ROOT / "qa_lm" / "data" / "builtin" / "tutorial.jsonl").read_text())
    (tmp_path / "questions.csv").write_text("question\nWhat is 2 + 2?\n")
    if "--to gguf" in command and "--prove" in command:
        pytest.importorskip("xllamacpp")
    arguments = made_small(command, small_run.folder, tmp_path)
    done = script(Path(shlex.split(command)[1]).name, *arguments, stdin="How are you?\n")
    assert done.returncode == 0, done.stderr


SERVERS = [each for each in documented_commands(ours=True) if "serve.py" in each]


@pytest.mark.parametrize("command", SERVERS)
def test_every_documented_server_listens(small_run, script, command):
    with served(script, *made_small(command, small_run.folder, small_run.folder), QA_LM_API_KEY="k") as server:
        assert server.get("health").json() == {"status": "ok"}


def test_the_python_of_the_readme_runs(tmp_path, monkeypatch, capsys):
    (block,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    (tmp_path / "pairs.jsonl").write_text((ROOT / "qa_lm" / "data" / "builtin" / "tutorial.jsonl").read_text())
    monkeypatch.chdir(tmp_path)
    exec(block, {})
    assert capsys.readouterr().out.splitlines()[-1].endswith(". 1.0")
    assert (tmp_path / "outputs" / "pairs" / "metrics.json").is_file()
