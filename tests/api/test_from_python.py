"""`import qa_lm`: compose, train and ask from Python, with the process left as it was."""

import logging
import signal
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace

import lightning.pytorch as pl
import pytest
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import CSVLogger

import qa_lm
from qa_lm.config.schema import TrainConfig
from qa_lm.data.encoding import PromptTemplate
from qa_lm.evaluation.evaluate import EvaluatedPair
from qa_lm.reporting.sweep.jobs import read_sweep
from qa_lm.reporting.sweep.outcomes import objective_of
from qa_lm.training import train as training
from tests.config.test_configuration import load, message_for
from tests.conftest import small_config

TINY = ("model=tiny", "trainer.max_epochs=2", "trainer.accelerator=cpu")


def test_the_import_is_light_and_offers_what_it_lists():
    source = "import sys, qa_lm; print('torch' in sys.modules, 'hydra' in sys.modules); qa_lm.compose('seed=1');"
    source += "print('torch' in sys.modules); print([getattr(qa_lm, name) is None for name in qa_lm.__all__])"
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["False False", "False", str([False] * len(qa_lm.__all__))]
    assert {*qa_lm.__all__} <= {*dir(qa_lm)}
    with pytest.raises(AttributeError, match="no attribute 'tran'"):
        qa_lm.tran  # noqa: B018


def test_compose_is_the_way_of_the_command_line():
    assert qa_lm.compose() == load([])
    assert qa_lm.compose(*TINY) == load(list(TINY)) == qa_lm.compose(*TINY)
    config = qa_lm.compose("data.path=질문.csv", "data.prompt={context}\\n{question}")
    assert (config.data.path, config.data.prompt) == ("질문.csv", "{context}\\n{question}")


def test_compose_works_in_threads():
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda seed: qa_lm.compose(f"seed={seed}").seed, range(8)))
    assert found == list(range(8))


@pytest.mark.parametrize("overrides", [["optimizer.lrr=3"], ["model=tinny"], ["seed=-1"], ["a b"], ["optimizer=3"]])
def test_a_mistake_is_the_line_of_the_command_line(overrides):
    with pytest.raises(qa_lm.UserError) as caught:
        qa_lm.compose(*overrides)
    assert str(caught.value) == message_for(overrides)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("optimizer.lr=1,2", "call it for each value"),
        ("sweep=size", "is a sweep"),
        ("-m", "compose takes settings"),
        ("hydra.run.dir=x", "folder=FOLDER"),
        ("resume=outputs/x", "resume=auto"),
        ("trainer.max_epoch=3", "did you mean trainer.max_epochs"),
        (3, "must be strings"),
    ],
)
def test_what_belongs_to_the_command_line_alone_is_refused(override, words):
    with pytest.raises(qa_lm.UserError, match=words):
        qa_lm.compose(override)


class Watches(Callback):
    """Notes the state of the process within a training step."""

    def __init__(self) -> None:
        self.steps = 0
        self.interrupts: set[object] = set()
        self.filters: list[object] = []

    def on_train_batch_end(self, trainer: pl.Trainer, *arguments: object) -> None:
        self.steps += 1
        self.interrupts.add(signal.getsignal(signal.SIGINT))
        self.filters = list(warnings.filters)


def test_a_run_from_python_is_a_run_and_leaves_the_process_alone(tmp_path, monkeypatch):
    allocator = []
    monkeypatch.setattr("qa_lm.training.hardware.tune_allocator", lambda arguments: allocator.append(1))
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM), list(warnings.filters)
    level = logging.getLogger("lightning.pytorch").level
    watches, logger = Watches(), CSVLogger(tmp_path / "csv")
    config = small_config()
    kept = asdict(config)
    run = qa_lm.train(config, tmp_path / "run", callbacks=[watches], loggers=[logger])
    assert watches.steps == run.metrics["steps"] > 0
    assert watches.interrupts == {before[0]}
    assert watches.filters == before[2]
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM), list(warnings.filters)) == before
    assert logging.getLogger("lightning.pytorch").level == level
    assert not allocator
    assert asdict(config) == kept
    logged = (tmp_path / "csv" / "lightning_logs" / "version_0" / "metrics.csv").read_text()
    assert "train/loss" in logged.splitlines()[0]
    assert "end/recall" in logged.splitlines()[0]
    assert list(run.folder.glob("events.out.tfevents.*"))
    assert run.report.read_text().startswith("<!doctype html>")
    assert (run.folder / "loss_curve.png").is_file()
    with pytest.raises(qa_lm.UserError, match="already holds a run"):
        qa_lm.train(config, tmp_path / "run")


def test_own_loggers_may_be_the_only_ones(tmp_path):
    run = qa_lm.train(small_config(loggers={}, trainer__max_epochs=1), tmp_path / "run", loggers=[CSVLogger(tmp_path)])
    assert not list(run.folder.glob("events.out.tfevents.*"))
    assert (tmp_path / "lightning_logs" / "version_0" / "metrics.csv").is_file()


def test_a_run_is_resumed_and_a_finished_one_is_returned(tmp_path, capsys):
    first = qa_lm.train(small_config(trainer__max_epochs=1), tmp_path)
    more = qa_lm.train(small_config(trainer__max_epochs=2, resume="auto"), first.folder)
    assert more.metrics["epochs_run"] == 2
    again = qa_lm.train(small_config(trainer__max_epochs=2, resume="auto"), str(tmp_path))
    assert again == more
    assert "this run is finished after 2 epochs" in capsys.readouterr().out


def test_it_trains_in_a_thread_and_makes_a_folder_for_each_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with ThreadPoolExecutor(1) as pool:
        runs = [pool.submit(qa_lm.train, small_config(trainer__max_epochs=1)).result() for _ in range(2)]
    assert runs[0].folder != runs[1].folder
    assert all(run.folder.parts[0] == "outputs" and run.report.is_file() for run in runs)


def test_a_run_that_cannot_start_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(qa_lm.UserError, match="none.jsonl: cannot be read"):
        qa_lm.train(qa_lm.compose("data.path=none.jsonl"))
    with pytest.raises(qa_lm.UserError, match="has no value"):
        qa_lm.train(TrainConfig())
    assert not list(tmp_path.iterdir())


def test_the_other_processes_of_several_get_the_run(tmp_path, monkeypatch, small_run):
    def ends(*arguments, **more):
        raise training.OtherProcess(0)

    monkeypatch.setattr(training, "train", ends)
    config = small_config(resume="auto", trainer__max_epochs=30, early_stopping__patience=None)
    assert qa_lm.train(config, small_run.folder) == qa_lm.Run(small_run.folder)


def test_a_finished_run_is_asked_and_read(learnt_run):
    run = qa_lm.Run(str(learnt_run.folder))
    right = [answer for answer in learnt_run.answers if answer.exact_match]
    assert right
    assert [run.ask(answer.question) for answer in right] == [answer.generated for answer in right]
    assert run.metrics["recall"] == learnt_run.metrics["recall"]
    assert [row["split"] for row in run.board["rows"]]
    assert all(isinstance(answer, EvaluatedPair) for answer in run.answers)
    assert [answer.generated for answer in run.answers] == [answer.generated for answer in learnt_run.answers]
    with pytest.raises(qa_lm.UserError, match="question 1 is empty"):
        run.ask(" ")
    with pytest.raises(qa_lm.UserError, match=r"asked with question: ask\(question\)"):
        run.ask("What?", context="x")
    run.__dict__["answerer"] = replace(run.answerer, template=PromptTemplate("{context} {question}", " {answer}"))
    with pytest.raises(qa_lm.UserError, match=r"ask\(question, context=...\)"):
        run.ask("What?")
    with pytest.raises(qa_lm.UserError, match=r"report\.html is missing; it is written when training ends"):
        run.report  # noqa: B018


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(qa_lm.UserError, match="not a run folder"):
        qa_lm.Run(tmp_path)


class WeightNorm(Callback):
    """Logs a metric of its own."""

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        norm = sum(float(parameter.detach().norm()) for parameter in pl_module.parameters())
        pl_module.log("weights/norm $x$", norm)


def test_what_a_callback_logs_is_a_column_a_curve_and_can_be_monitored(tmp_path):
    config = qa_lm.compose(*TINY, "monitor='weights/norm $x$'", "monitor_mode=max", "early_stopping.patience=null")
    run = qa_lm.train(config, tmp_path / "run", callbacks=[WeightNorm()])
    rows = (tmp_path / "run" / "metrics.csv").read_text().splitlines()
    assert rows[0].endswith(",learning_rate,weights/norm $x$")
    norms = [float(row.rpartition(",")[2]) for row in rows[1:]]
    assert run.metrics["logged"] == {"weights/norm $x$": norms[-1]}
    assert run.metrics["objective"] == pytest.approx(max(norms))
    page = run.report.read_text()
    assert 'aria-label="weights/norm $x$, by epoch"' in page
    jobs = read_sweep(tmp_path).jobs
    found = objective_of(jobs).outcome
    assert (found.name, found.title, found.smaller_is_better) == ("objective", "best weights/norm $x$", False)
    assert objective_of(jobs, "weights/norm $x$").outcome.name == "weights/norm $x$"
