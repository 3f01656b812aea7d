"""TensorBoard shows one clean curve of a run that was gone on with: each step once, the values of a whole run."""

import time
from pathlib import Path

import pytest
from tensorboard import context
from tensorboard.backend.event_processing import data_provider, plugin_event_multiplexer
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins import base_plugin
from tensorboard.plugins.hparams import api_pb2, backend_context, list_session_groups

from qa_lm.config import LoggerConfig, OptimizerKind, TrainConfig
from qa_lm.modeling.module import CausalLMModule
from qa_lm.training.checkpoints import read_checkpoint
from qa_lm.training.hyperparameters import flat_hyperparameters
from qa_lm.training.tensorboard import EventsLogger
from qa_lm.training.train import train
from tests.conftest import small_config
from tests.faults.interrupting import broken_off, interrupted

CLOCK = "perf/tokens_per_s"


def curves(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Tag to its steps and values."""
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    return {
        tag: [(each.step, each.value) for each in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
        if tag != CLOCK
    }


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
    return curves(whole_run)


@pytest.mark.parametrize(("method", "call"), [("training_step", 3), ("training_step", 8), ("validation_step", 1)])
def test_it_is_the_curve_of_a_whole_run(method, call, whole, tmp_path):
    folder = interrupted(configuration(), tmp_path / "run", method, call)
    train(configuration(resume="auto"), folder)
    assert len(list(folder.glob("events.out.tfevents.*"))) == 2
    found = curves(folder)
    assert set(found) == set(whole)
    assert found == whole
    assert [step for step, _ in found["train/loss_step"]] == list(range(1, 25))
    assert [step for step, _ in found["val/loss"]] == [8, 16, 24]


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
    assert curves(tmp_path / "run") == whole


def test_the_hparams_page_has_every_run_with_the_same_columns(whole_run, tmp_path):
    """Also one that failed, one that was interrupted, and one that goes another way."""
    (tmp_path / "ended").symlink_to(whole_run)
    interrupted(configuration(), tmp_path / "interrupted", "training_step", 9)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CausalLMModule, "training_step", lambda *arguments: 1 // 0)
        with pytest.raises(ZeroDivisionError):
            train(configuration(), tmp_path / "failed")
    train(
        configuration(logger=LoggerConfig("csv"), optimizer__kind=OptimizerKind.muon, compile=False), tmp_path / "muon"
    )
    events = plugin_event_multiplexer.EventMultiplexer().AddRunsFromDirectory(str(tmp_path))
    events.Reload()
    provider = data_provider.MultiplexerDataProvider(events, str(tmp_path))
    page = backend_context.Context(base_plugin.TBContext(data_provider=provider))
    ask = api_pb2.ListSessionGroupsRequest(start_index=0, slice_size=99, include_metrics=True)
    ask.allowed_statuses.extend(api_pb2.Status.values())
    groups = list_session_groups.Handler(context.RequestContext(), page, "sweep", ask).run().session_groups
    ended = {group.name: group.sessions[0].status == api_pb2.STATUS_SUCCESS for group in groups}
    assert ended == {"ended": True, "muon": True, "failed": False, "interrupted": False}
    assert {frozenset(group.hparams) for group in groups} == {frozenset(flat_hyperparameters(configuration()))}
    for group in groups:
        tags = {value.name.tag for value in group.metric_values}
        assert tags == ({"end/val_loss", "end/best_val_loss", "end/recall"} if ended[group.name] else set())
