"""The package as it is installed: the wheel, the command `qa-lm`, and your own settings files."""

import json
import os
import shutil
import subprocess
import sys
import tomllib
import venv
from pathlib import Path

import pytest
import torch

from qa_lm import __version__, cli
from qa_lm.commands import ask, train
from qa_lm.config.compose import conf_folder
from tests.conftest import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_every_package_is_installed():
    found = {".".join(file.parent.relative_to(ROOT).parts) for file in (ROOT / "qa_lm").rglob("__init__.py")}
    assert {*PROJECT["tool"]["setuptools"]["packages"]} == {*found, "qa_lm.conf"}


def test_the_settings_are_found_in_a_checkout():
    assert conf_folder() == ROOT / "conf"


def test_the_version_is_said_once():
    assert PROJECT["project"]["version"] == __version__


def run_cli(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["/somewhere/qa-lm", *arguments])
    return cli.main()


def test_each_command_is_there(monkeypatch, capsys):
    assert run_cli(monkeypatch, "--version") == 0
    assert capsys.readouterr().out == f"qa-lm {__version__}\n"
    for arguments, code in (((), 2), (("--help",), 0)):
        assert run_cli(monkeypatch, *arguments) == code
        shown = capsys.readouterr().out
        assert all(f"\n  {name} " in shown for name in cli.COMMANDS)
    for name in set(cli.COMMANDS) - {"train"}:
        with pytest.raises(SystemExit) as end:
            run_cli(monkeypatch, name, "--help")
        assert end.value.code == 0
        assert capsys.readouterr().out.startswith(f"usage: qa-lm {name} ")


def test_a_command_gets_its_arguments_and_gives_its_exit_code(monkeypatch, capsys):
    assert run_cli(monkeypatch, "ask", "none", "Why?") == 2
    assert "none" in capsys.readouterr().err
    monkeypatch.setattr(ask, "main", lambda: 130)
    assert run_cli(monkeypatch, "ask") == 130
    monkeypatch.setattr(train, "main", lambda program: sys.argv[1:] == ["seed=1"] and program[-1] == "train" and 77)
    assert run_cli(monkeypatch, "train", "seed=1") == 77


@pytest.mark.parametrize(("word", "hint"), [("trian", "did you mean train?"), ("x", "available: train, ask,")])
def test_an_unknown_command_is_one_line(monkeypatch, capsys, word, hint):
    assert run_cli(monkeypatch, word) == 2
    assert f"error: {word}: no such command; {hint}" in capsys.readouterr().err


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of programs of an environment with the wheel and the packages of this one, without the checkout."""
    folder = tmp_path_factory.mktemp("installed")
    source = folder / "source"
    source.mkdir()
    for name in ("qa_lm", "conf"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    quiet = ["--quiet", "--no-deps", "--no-index", "--disable-pip-version-check"]
    pip = [sys.executable, "-m", "pip"]
    subprocess.run([*pip, "wheel", *quiet, "--no-build-isolation", "-w", str(folder), str(source)], check=True)
    shutil.rmtree(source)
    environment = folder / "environment"
    venv.create(environment, with_pip=False)
    programs = environment / "bin"
    (wheel,) = folder.glob("qa_lm-*.whl")
    python = str(programs / "python")
    subprocess.run([*pip, "--python", python, "install", *quiet, str(wheel)], check=True)
    # A line of a .pth file is a folder, whose own .pth files are not read: the checkout is not on the path.
    (packages,) = environment.glob("lib/python*/site-packages")
    (packages / "base.pth").write_text(f"{Path(torch.__file__).parent.parent}\n")
    return programs


def called(programs: Path, folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    kept = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [str(programs / "qa-lm"), *arguments]
    return subprocess.run(command, cwd=folder, env=kept, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_the_command_works_without_the_checkout(installed, tmp_path):
    where = [str(installed / "python"), "-c", "import qa_lm; print(qa_lm.__file__)"]
    shown = subprocess.run(where, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert shown.startswith(str(installed.parent))
    done = called(installed, tmp_path, "train", "model=tiny", "trainer.max_epochs=1")
    assert done.returncode == 0, done.stderr
    run = Path(done.stdout.splitlines()[-1])
    assert "next:   qa-lm train experiment=recall data=tutorial\n" in done.stdout
    assert f"ask:    qa-lm ask {run.relative_to(tmp_path)} " in done.stdout
    assert json.loads((run / "environment.json").read_text())["command"][0] == "qa-lm train"
    assert "qa-lm train model=tiny trainer.max_epochs=1" in (run / "report.md").read_text()
    asked = called(installed, tmp_path, "ask", str(run), "What is 2 + 2?")
    assert (asked.returncode, asked.stderr) == (0, "")
    wrong = called(installed, tmp_path, "train", "model=tinny")
    assert (wrong.returncode, wrong.stderr) == (2, "error: " + NO_TINNY)


NO_TINNY = "model=tinny: no such choice; did you mean tiny? Choices: fitted, medium, pretrained, small, tiny.\n"


@pytest.mark.slow
def test_a_sweep_of_the_command_starts_its_jobs(installed, tmp_path):
    arguments = ("-m", "model=tiny", "trainer.max_epochs=1", "seed=1,2", "hydra.sweep.dir=sweep")
    done = called(installed, tmp_path, "train", *arguments, "hydra/launcher=processes")
    assert done.returncode == 0, done.stderr
    assert len(list(tmp_path.glob("sweep/*/metrics.json"))) == 2
    report = called(installed, tmp_path, "sweep-report", "sweep")
    assert report.returncode == 0, report.stderr
    assert "qa-lm train " in report.stdout
    assert "scripts/" not in report.stdout
