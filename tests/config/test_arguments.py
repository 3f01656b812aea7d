"""Arguments that are taken do what they say: the Trainer's, and the words that people type first."""

import ast
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any, get_type_hints

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from lightning.pytorch import Trainer

from qa_lm.config.aliases import choice_hint
from qa_lm.config.arguments import hydra_arguments, several_values, unreadable
from qa_lm.config.trainer_arguments import check_trainer_arguments, trainer_parameters
from qa_lm.data.batches import datamodule
from qa_lm.errors import UserError
from qa_lm.reporting.loss_curve import draw_loss_curve
from qa_lm.reporting.run.report import write_report
from qa_lm.reporting.run.table import answers_table
from qa_lm.training.train import train
from tests.config.test_configuration import message_for
from tests.conftest import ROOT, small_config
from tests.ledger.test_ledger import ledger_of


def run(folder: Path, **arguments: Any) -> dict[str, Any]:
    """The metrics of a small run with these arguments of the Trainer."""
    return train(small_config(**{f"trainer__{name}": value for name, value in arguments.items()}), folder).metrics


def trained_rows(folder: Path) -> list[dict[str, Any]]:
    return [row for row in json.loads((folder / "board.json").read_text())["rows"] if row["split"] == "train"]


@pytest.mark.parametrize(
    ("arguments", "trained"), [({"overfit_batches": 2}, 2), ({"overfit_batches": 0.5}, 4), ({"max_steps": 3}, 3)]
)
def test_only_pairs_of_a_training_step_count_as_trained(tmp_path, capsys, arguments, trained):
    metrics = run(tmp_path, **arguments)
    assert (metrics["pairs_trained"], metrics["pairs_never_trained"]) == (trained, 8 - trained)
    assert [row["n"] for row in trained_rows(tmp_path)] == [trained]
    assert len(ledger_of(tmp_path)) == trained
    assert f"note: {8 - trained} of the 8 training pairs were never in a training step" in capsys.readouterr().out


def test_pairs_trained_are_known_without_a_ledger(tmp_path):
    config = small_config(ledger=False, trainer__limit_train_batches=3, data__shuffle=True, trainer__max_epochs=1)
    assert train(config, tmp_path).metrics["pairs_trained"] == 3


@pytest.mark.parametrize("arguments", [{"max_epochs": 0}, {"max_steps": 0}, {"limit_train_batches": 0}])
def test_a_run_that_trains_nothing_says_so(tmp_path, capsys, arguments):
    metrics = run(tmp_path, **arguments)
    assert (metrics["recall"], metrics["pairs_trained"], metrics["steps"]) == (None, 0, 0)
    assert trained_rows(tmp_path) == []
    assert "warning: nothing was trained" in capsys.readouterr().out
    assert "Nothing was trained." in answers_table(tmp_path)
    assert draw_loss_curve(tmp_path).is_file()
    write_report(tmp_path)
    assert "Nothing was trained" in (tmp_path / "report.md").read_text()
    assert (tmp_path / "metrics.csv").read_text().startswith("epoch,step,train_loss")


@pytest.mark.parametrize(
    ("arguments", "setting"),
    [
        ({"limit_val_batches": 0}, "trainer.limit_val_batches=0"),
        ({"max_steps": 3}, "trainer.max_steps=3"),
        ({"check_val_every_n_epoch": 5}, "trainer.check_val_every_n_epoch=5"),
        ({"val_check_interval": 50, "check_val_every_n_epoch": None}, "trainer.val_check_interval=50"),
    ],
)
def test_a_run_without_validation_says_so_first(tmp_path, capsys, arguments, setting):
    metrics = run(tmp_path, **arguments)
    assert metrics["best_epoch"] is None
    lines = capsys.readouterr().out.splitlines()
    assert sum("no best checkpoint" in line for line in lines) == 1
    at = next(number for number, line in enumerate(lines) if line.startswith(f"warning: {setting}: no validation"))
    assert at < next(number for number, line in enumerate(lines) if line.startswith("epoch"))


def test_the_best_of_several_validations_in_an_epoch_is_named(tmp_path, capsys):
    metrics = run(tmp_path, val_check_interval=0.5)
    assert metrics["best_val_loss"] == metrics["objective"] < metrics["final_val_loss"]
    assert "improved at step 20" in capsys.readouterr().out


def test_a_time_limit_is_named(tmp_path, capsys):
    config = small_config(trainer__max_time={"seconds": 1}, trainer__max_epochs=-1, early_stopping__patience=None)
    config.evaluation.max_pairs = 0
    train(config, tmp_path)
    assert "Stopped: reached trainer.max_time after " in capsys.readouterr().out


def test_a_profile_is_written_where_the_run_says(tmp_path, capsys):
    run(tmp_path, profiler="simple", max_epochs=1)
    where = re.search(r"^profile: (.+)$", capsys.readouterr().out, flags=re.MULTILINE)
    assert where
    assert "run_training_batch" in (Path(where[1]) / "fit-simple.txt").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"gradient_clip_val": -1}, "trainer.gradient_clip_val=-1: must be 0 or more"),
        ({"accumulate_grad_batches": 0}, "trainer.accumulate_grad_batches=0: must be at least 1"),
        ({"limit_train_batches": 1.5}, "trainer.limit_train_batches=1.5: must be a whole number of batches"),
        ({"max_time": "ten"}, "trainer.max_time=ten: must be days:hours"),
        ({"profiler": "fast"}, "trainer.profiler=fast: must be one of simple"),
        ({"min_epochs": 4, "max_epochs": 3}, "trainer.min_epochs=4: must be at most trainer.max_epochs = 3"),
        ({"enable_checkpointing": False}, "trainer.enable_checkpointing=false: the best"),
        ({"limit_test_batches": 2}, "trainer.limit_test_batches: cannot be set; evaluation.max_pairs"),
        ({"val_check_interval": 20}, "trainer.val_check_interval=20: an epoch has only 8 batches"),
        ({"limit_train_batches": 0.01}, "trainer.limit_train_batches=0.01: less than 1 of 8 batches"),
    ],
)
def test_values_that_cannot_work_are_refused(tmp_path, arguments, message):
    with pytest.raises(UserError, match=f"^{re.escape(message)}"):
        run(tmp_path / "run", **arguments)
    assert not (tmp_path / "run" / "config.yaml").exists()


def test_a_limited_validation_counts_the_bytes_of_its_own_pairs(tmp_path, monkeypatch):
    """Bits per byte of one of two held-out pairs are about those of both; by the bytes of both they would be half."""
    monkeypatch.setattr(datamodule, "SCORED_TOKENS", 1)  # else both are in the first batch
    bits = []
    for limit in (1.0, 1):
        config = small_config(data__packing=True, data__row_tokens=64, trainer__max_epochs=1, evaluation__max_pairs=0)
        config.trainer["limit_val_batches"] = limit
        bits.append(train(config, tmp_path / str(limit)).metrics["final_val_bits_per_answer_byte"])
    assert bits[0] != bits[1]
    assert 0.75 < bits[1] / bits[0] < 1.35


def test_the_signature_is_the_trainers_own():
    known = trainer_parameters()
    assert list(known) == [name for name in get_type_hints(Trainer.__init__) if name not in ("self", "return")]
    for value in ("bf16-mixed", 64, None):
        check_trainer_arguments({"precision": value, "max_epochs": 3})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["trainer.max_epoch=1"],
            "error: trainer.max_epoch: lightning.Trainer has no argument max_epoch; did you mean",
        ),
        (["trainer.gradient_clip_val=-1"], "error: trainer.gradient_clip_val=-1: must be 0 or more"),
        (["data=file", "data.path=nope.csv"], "error: nope.csv: cannot be read: No such file"),
        (["tokenizer=folder", "tokenizer.path=nope"], "error: tokenizer.path=nope: no such folder"),
        (["resume=nope"], "error: resume: nope holds no run"),
    ],
)
def test_mistakes_are_refused_before_torch_is_imported(tmp_path, arguments, message):
    source = f"""
import runpy, sys
sys.argv = ["train.py", *{arguments!r}]
try:
    runpy.run_path({str(ROOT / "scripts" / "train.py")!r}, run_name="__main__")
except SystemExit as end:
    print([end.code, sorted({{"torch", "lightning", "transformers", "pyarrow"}} & set(sys.modules))])
"""
    done = subprocess.run([sys.executable, "-c", source], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stderr.startswith(message)
    assert ast.literal_eval(done.stdout) == [2, []]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("override", "here"),
    [
        ("max_epochs=3", "trainer.max_epochs="),
        ("epochs=3", "trainer.max_epochs="),
        ("ckpt_path=x", "resume=RUN_FOLDER"),
        ("debug=fdr", "debug=fast"),
        ("callbacks=early_stopping", "early_stopping.patience="),
        ("task_name=x", "name="),
        ("test=True", "scripts/evaluate.py"),
        ("train=False", "scripts/evaluate.py"),
        ("paths.output_dir=x", "hydra.run.dir="),
        ("+paths.output_dir=x", "hydra.run.dir="),
        ("hparams_search=optuna", "hydra/sweeper=optuna"),
        ("optimized_metric=x", "monitor="),
        ("precision=32", "trainer.precision="),
        ("devices=2", "trainer.devices="),
        ("gpus=2", "trainer.accelerator=gpu"),
        ("file=x.csv", "data.path=FILE"),
        ("data.builtin=capitals", "data.path=tutorial or data.path=capitals"),
        ("optimizer.decay_share=0.1", "optimizer.schedule=wsd decays over the last fifth"),
        ("limit_train_batch=2", "trainer.limit_train_batches"),
        ("trainer=mps", "trainer.accelerator=mps"),
        ("trainer=ddp_sim", "trainer=ddp trainer.accelerator=cpu"),
        ("logger=none", "loggers=[tensorboard,csv]"),
        ("logger=csv", "loggers=[tensorboard,csv]"),
        ("logger.project=x", "loggers=[tensorboard,csv]"),
        ("loggers=null", "loggers=none"),
        ("loggers=many_loggers", "loggers=[tensorboard,csv,wandb]"),
        ("trainer.logger=false", "loggers=none"),
        ("data=faq.csv", "data.path=faq.csv"),
        ("lr=1", "optimizer.lr"),
        ("batch_size=2", "data.batch_size"),
        ("num_workers=2", "data.workers="),
        ("patience=2", "early_stopping.patience"),
    ],
)
def test_words_of_other_projects_name_the_setting_here(override, here):
    told = message_for([override])
    assert told.startswith(override.lstrip("+").partition(".")[0].partition("=")[0])
    assert here in told
    assert len(told.splitlines()) <= 2


def test_no_choice_is_named_that_is_there():
    assert choice_hint("trainer", "default") is None


@pytest.mark.parametrize("name", ["a=b.jsonl", "a(1).csv", "a{b}.csv", "~a.csv", "it's.csv", 'a"b.csv', "a#b\\", "[x"])
def test_the_hint_for_an_odd_file_name_can_be_pasted(name):
    told = unreadable(f"data.path={name}")
    (pasted,) = shlex.split(told.rpartition(": ")[2])
    assert OverridesParser.create().parse_override(pasted).value() == name


def test_other_words_that_are_no_settings():
    assert unreadable("faq.csv") == "faq.csv: not a setting; did you mean data.path=faq.csv?"
    assert "write a setting as key=value" in unreadable("seed")
    assert several_values("optimizer.lr=1,2") == (
        "optimizer.lr=1,2: several values; add -m to train with each of them\n"
        "As one value: 'optimizer.lr=[1,2]' is a list, 'optimizer.lr=\"1,2\"' is text."
    )
    assert message_for(["optimizer.lr=1,2"]) == several_values("optimizer.lr=1,2")


@pytest.mark.parametrize(
    ("given", "read"),
    [
        (["data.path=내 질문.jsonl"], ['data.path="내 질문.jsonl"']),
        (["data.path='내.jsonl'", "x=é,b"], ["data.path='내.jsonl'", "x=é,b"]),
        (["a=1", "-m", "b=2", "a=1"], ["a=1", "b=2", "a=1", "-m"]),
        (["--cfg", "job", "-p", "data", "a=1"], ["a=1", "--cfg", "job", "-p", "data"]),
        (["-sc", "install=bash"], ["install=bash", "-sc"]),
        # Hydra takes every backslash as it is, except the first of two at the start, as of a Windows network path.
        ([r"data.path=C:\new\faq.csv"], [r"data.path=C:\new\faq.csv"]),
        ([r"data.path=\\server\new\faq.csv"], [r'data.path="\\server\new\faq.csv"']),
    ],
)
def test_the_command_line_as_hydra_takes_it(given, read):
    assert hydra_arguments(given) == read


def test_an_option_that_is_a_setting():
    with pytest.raises(UserError, match="^--lr: no such option; settings have no dashes: lr=VALUE$"):
        hydra_arguments(["--lr", "3"])


@pytest.mark.parametrize("shell", ["bash", "fish", "zsh"])
def test_shell_completion_is_hydras_own(script, shell):
    installed = script("train.py", "-sc", f"install={shell}")
    assert (installed.returncode, installed.stderr) == (0, "")
    assert f"hydra_{'fish' if shell == 'fish' else 'bash'}_completion" in installed.stdout
    assert script("train.py", "-sc", f"uninstall={shell}").returncode == 0


def test_shell_completion_names_choices(script):
    environment = {**os.environ, "COMP_LINE": "train.py model=", "COMP_POINT": "15", "COMP_CWORD": "1"}
    done = script("train.py", "-sc", "query=bash", environment=environment)
    assert "model=small" in done.stdout.split()


@pytest.mark.parametrize(
    "arguments", [["-m", "data.path=nope.csv", "seed=1,2"], ["data.path=nope.csv", "seed=1", "-m"]]
)
def test_a_sweep_reads_a_file_that_is_named_by_its_path_alone(tmp_path, arguments):
    command = [sys.executable, str(ROOT / "scripts" / "train.py"), *arguments]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (2, "error: nope.csv: cannot be read: No such file or directory\n")
