"""TensorBoard shows one clean curve of a run that was gone on with: each step once, the values of a whole run."""

import json
import math
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tensorboard import context
from tensorboard.backend.event_processing import data_provider, plugin_event_multiplexer
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins import base_plugin
from tensorboard.plugins.hparams import api_pb2, backend_context, get_experiment, list_session_groups

from qa_lm.config.enums import OptimizerKind
from qa_lm.config.schema import TrainConfig
from qa_lm.modeling.module import CausalLMModule
from qa_lm.run.checkpoint import read_checkpoint
from qa_lm.training.logging.hyperparameters import compared_hyperparameters
from qa_lm.training.logging.loggers import log_values
from qa_lm.training.logging.tensorboard import FINAL, RESULTS, EventsLogger
from qa_lm.training.train import train
from tests.conftest import small_config
from tests.faults.resume.interrupting import broken_off, interrupted

CLOCKS = ("perf/tokens_per_s", "learning results/seconds", "end/seconds")
"""Values that differ from run to run."""


def curves(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Tag to its steps and values."""
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    return {
        tag: [(each.step, each.value) for each in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
        if tag not in CLOCKS
    }


def all_curves(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """With those of the runs below the run's own."""
    runs = [run for run in ("train", "validation") if (folder / run).is_dir()]
    return curves(folder) | {f"{run}: {tag}": found for run in runs for tag, found in curves(folder / run).items()}


def configuration(**more: object) -> TrainConfig:
    return small_config(
        data__shuffle=True, model__dropout=0.2, trainer__log_every_n_steps=1, early_stopping__patience=None, **more
    )


@pytest.mark.parametrize(("seconds", "last"), [(0, True), (3600, False)])
def test_a_new_file_is_read_after_those_before(tmp_path, monkeypatch, seconds, last):
    """Files begun in the same second are told apart by numbers that are compared as text. A clock may be set back."""
    earlier = tmp_path / f"events.out.tfevents.{int(time.time()) + seconds}.zzz.9.9"
    for name in (earlier.name, "events.out.tfevents.none", "events.out.tfevents.x.y"):
        (tmp_path / name).touch()
    slept, sleep = list[float](), time.sleep

    def short(left):
        slept.append(left)
        sleep(min(left, 1.0))

    monkeypatch.setattr(time, "sleep", short)
    logger = EventsLogger(tmp_path)
    assert all(left <= 1 for left in slept)
    logger.log_metrics({"a": 1.0}, 1)
    logger.close()
    (new,) = [path.name for path in tmp_path.iterdir() if path.stat().st_size]
    assert (new > earlier.name) is last


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory):
    return train(configuration(), tmp_path_factory.mktemp("whole")).folder


@pytest.fixture(scope="module")
def whole(whole_run):
    return all_curves(whole_run)


@pytest.mark.parametrize(("method", "call"), [("training_step", 3), ("training_step", 8), ("validation_step", 1)])
def test_it_is_the_curve_of_a_whole_run(method, call, whole, tmp_path):
    folder = interrupted(configuration(), tmp_path / "run", method, call)
    train(configuration(resume="auto"), folder)
    assert len(list(folder.glob("events.out.tfevents.*"))) == 2
    found = all_curves(folder)
    assert set(found) == set(whole)
    assert found == whole
    assert [step for step, _ in found["train/loss_step"]] == list(range(1, 25))
    assert [step for step, _ in found["val/loss"]] == [step for step, _ in found["train/loss"]] == [8, 16, 24]


@pytest.mark.parametrize(("every_steps", "every_seconds", "lost"), [(5, None, 4), (None, 0.0, 0), (8, None, 6)])
def test_what_was_logged_after_the_checkpoint_is_not_shown_twice(whole, tmp_path, every_steps, every_seconds, lost):
    """Ended by an error between two checkpoints: the steps after the newest one are done and logged again."""
    config = configuration()
    config.checkpoint.every_steps, config.checkpoint.every_seconds = every_steps, every_seconds
    broken_off(config, tmp_path / "run", 15)
    saved = read_checkpoint(tmp_path / "run" / "checkpoints" / "last.ckpt")["global_step"]
    assert 14 - saved == lost  # what is done again, of the 8 steps of an epoch
    config.resume = "auto"
    train(config, tmp_path / "run")
    assert all_curves(tmp_path / "run") == whole


def test_what_a_checkpoint_holds_is_in_the_files(tmp_path):
    """A process that is killed after it writes nothing more."""
    logger = EventsLogger(tmp_path)
    logger.log_metrics({"train/loss": 1.0}, 1)
    logger.save()
    assert logger.newest == {"step": 1, "values": {"train/loss": 1.0}}
    assert all_curves(tmp_path) == {"train/loss": [(1, 1.0)], "train: learning/loss": [(1, 1.0)]}
    logger.close()


@pytest.mark.parametrize(("begin", "steps"), [(12, [12, 15]), (13, [15])])
def test_only_the_step_at_which_a_run_resumes_is_logged_again(begin, steps, tmp_path):
    """The values of earlier steps stay visible, and would be there twice."""
    logger = EventsLogger(tmp_path, begin=begin)
    logger.log_again({"step": 12, "values": {"train/loss": 1.0}})
    logger.log_metrics({"train/loss": 0.5}, 15)
    logger.close()
    assert {tag: [step for step, _ in found] for tag, found in all_curves(tmp_path).items()} == {
        "train/loss": steps,
        "train: learning/loss": steps,
    }


def in_order(tag: str) -> list[tuple[bool, str]]:
    """Sorts as TensorBoard's pages do: signs that part words come before all others."""
    return [(character not in "/_0123456789", character) for character in tag]


def test_the_pages_begin_with_both_losses_in_one_chart_and_recall(whole):
    tags = {tag.partition(": ")[2] or tag for tag in whole}
    assert sorted(tags, key=in_order)[:3] == ["learning/loss", "learning/recall", "learning results/best_val_loss"]
    assert sorted(tags)[:3] == [
        f"learning results/{name}" for name in FINAL if name != "seconds"
    ]  # so the HParams page sorts
    for run, loss, exact in (("train", "train/loss", "train/recall"), ("validation", "val/loss", "val/exact_match")):
        assert whole[f"{run}: learning/loss"] == whole[loss]
        assert whole[f"{run}: learning/recall"] == whole[exact]


def test_a_run_without_validation_has_no_scalars_that_are_no_numbers(tmp_path):
    folder = train(configuration(trainer__limit_val_batches=0), tmp_path / "run").folder
    found = all_curves(folder)
    assert {tag for tag in found if "val" in tag} == {"learning results/val_exact_match"}  # asked at the end
    assert {"train/loss", "learning results/recall"} <= set(found)
    assert all(math.isfinite(value) for curve in found.values() for _, value in curve)


def test_values_that_are_no_numbers_are_logged_nowhere():
    logged = []
    logger = SimpleNamespace(log_metrics=lambda values, step: logged.append((values, step)))
    trainer: Any = SimpleNamespace(loggers=[logger, logger], global_step=3)
    log_values(trainer, {"a": math.nan, "b": 1.0, "c": math.inf})
    log_values(trainer, {"a": math.nan})
    assert logged == [({"b": 1.0}, 3)] * 2


@pytest.mark.parametrize("name", ["train", "validation"])
def test_a_link_in_a_run_of_someone_else_is_not_followed(name, tmp_path):
    (tmp_path / "theirs").mkdir()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / name).symlink_to(tmp_path / "theirs")
    logger = EventsLogger(tmp_path / "run")
    with pytest.raises(OSError, match="is a link"):
        logger.log_metrics({"train/loss": 1.0, "val/loss": 1.0}, 1)
    assert not list((tmp_path / "theirs").iterdir())


def written(folder: Path, name: str, **content: object) -> None:
    (folder / name).write_text(json.dumps(content))


def test_the_settings_of_a_single_run_on_the_hparams_page(tmp_path):
    config = configuration(optimizer__weight_decay=0.1)
    common = {"data", "data.batch_size", "model.hidden_size", "model.layers", "optimizer.kind", "optimizer.lr", "seed"}
    assert set(compared_hyperparameters(config, tmp_path)) == common | {"trainer.max_epochs"}
    command = ["train.py", "model=tiny", "optimizer.weight_decay=0.1", "+trainer.log_every_n_steps=1", "data.path=x"]
    written(tmp_path, "environment.json", command=command)
    found = compared_hyperparameters(config, tmp_path)
    config.name, config.tags = "mine", ["a", "b"]
    assert compared_hyperparameters(config, tmp_path) == found | {"name": "mine", "tags": "a, b"}
    assert set(found) - common == {"trainer.max_epochs", "optimizer.weight_decay", "trainer.log_every_n_steps"}
    assert (found["data"], found["optimizer.weight_decay"]) == ("tutorial", 0.1)


@pytest.mark.parametrize("foreign", [["optimizer.lr"], 3, {"a": 1}, [None, ["x"]], "optimizer.lr"])
def test_the_settings_of_a_job_on_the_hparams_page(foreign, tmp_path):
    given = ["experiment=recall", "model=tiny", "optimizer.lr=3e-3", "seed=2"]
    written(tmp_path, "job.json", overrides=given, swept=["model", "optimizer.lr"])
    assert compared_hyperparameters(configuration(), tmp_path) == {"model": "tiny", "optimizer.lr": 0.003}
    written(tmp_path, "job.json", overrides=foreign, swept=foreign)
    found = compared_hyperparameters(configuration(), tmp_path)
    assert found["optimizer.lr"] == 0.003


def test_the_hparams_page_has_every_run_with_the_same_columns(whole_run, tmp_path):
    """Also one that failed, one that was interrupted, and one that goes another way."""
    (tmp_path / "ended").symlink_to(whole_run)
    interrupted(configuration(), tmp_path / "interrupted", "training_step", 9)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CausalLMModule, "training_step", lambda *arguments: 1 // 0)
        with pytest.raises(ZeroDivisionError):
            train(configuration(), tmp_path / "failed")
    csv = {"csv": {"_target_": "lightning.pytorch.loggers.CSVLogger", "name": "csv"}}
    loggers = configuration().loggers | csv
    train(configuration(loggers=loggers, optimizer__kind=OptimizerKind.muon, compile=False), tmp_path / "muon")
    events = plugin_event_multiplexer.EventMultiplexer().AddRunsFromDirectory(str(tmp_path))
    events.Reload()
    provider = data_provider.MultiplexerDataProvider(events, str(tmp_path))
    page = backend_context.Context(base_plugin.TBContext(data_provider=provider))
    ask = api_pb2.ListSessionGroupsRequest(start_index=0, slice_size=99, include_metrics=True)
    ask.allowed_statuses.extend(api_pb2.Status.values())
    groups = list_session_groups.Handler(context.RequestContext(), page, "sweep", ask).run().session_groups
    ended = {group.name: group.sessions[0].status == api_pb2.STATUS_SUCCESS for group in groups}
    assert ended == {"ended": True, "muon": True, "failed": False, "interrupted": False}
    assert {frozenset(group.hparams) for group in groups} == {
        frozenset(compared_hyperparameters(configuration(), tmp_path))
    }
    for group in groups:
        tags = {value.name.tag for value in group.metric_values if value.name.tag.startswith(RESULTS)}
        assert tags == ({RESULTS + name for name in FINAL} if ended[group.name] else set())
    found = get_experiment.Handler(
        context.RequestContext(), page, "sweep", api_pb2.GetExperimentRequest(include_metrics=True)
    ).run()
    assert [info.name for info in found.hparam_infos if info.differs] == ["optimizer.kind"]
    assert found.hparam_infos[0].name == "optimizer.kind"
