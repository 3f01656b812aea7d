"""Plans of whole runs, and scripts/plan.py."""

import re
from dataclasses import replace

import pytest
import torch

from qa_lm.commands import plan as command
from qa_lm.config.overrides import compose
from qa_lm.data.batches.datamodule import PairsDataModule
from qa_lm.errors import UserError
from qa_lm.training.plan.formulas import Strategy
from qa_lm.training.plan.prepare import Request, plan_run
from qa_lm.training.plan.rows import Epoch, device_counts
from qa_lm.training.plan.table import plan_text
from tests.documented import QUICK

SMALL = (*QUICK, "data=tutorial", "data.cache=off")


COLUMNS = 100
ON_H100 = Request(device="h100", devices=8)


def planned(*settings, **request):
    return plan_run(compose(*SMALL, *settings), replace(ON_H100, **request))


def test_the_numbers_of_devices_double():
    assert device_counts(1024) == [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024]
    assert device_counts(6) == [1, 2, 4, 6]
    assert device_counts(1) == [1]


@pytest.mark.parametrize("packing", ["true", "false"])
def test_an_epoch_has_the_batches_of_a_run(packing):
    config = compose(*SMALL, "data=capitals", f"data.packing={packing}", "data.row_tokens=128", "data.batch_size=3")
    data = PairsDataModule.from_config(config.data, config.tokenizer)
    data.setup()
    if packing == "true":
        data.row_tokens = 128
        data.train_rows = data._train_rows()
    epoch = Epoch(data.train_rows.rows, data.train_rows.batch_size, 1, 1.0)
    for devices in (1, 2, 8, 64, 1024):
        assert epoch.batches(devices) == data.batches(devices)[0]


def test_a_limit_and_accumulation_shorten_an_epoch():
    epoch = Epoch(rows=40, batch_size=2, tokens=400, epochs=1.0, micro_batches=3, limit=10)
    assert (epoch.batches(1), epoch.steps(1), epoch.trained_tokens(1)) == (10, 4, 200)
    assert (epoch.batches(4), epoch.steps(4), epoch.trained_tokens(4)) == (5, 2, 400)
    assert epoch.rows_per_device(40) == 1


def test_a_plan_does_not_need_the_memory_that_it_plans():
    settings = ("model.hidden_size=8192", "model.layers=80", "model.heads=64", "trainer.max_epochs=3")
    plan = planned(*settings, devices=1024)
    assert plan.work.parameters > 60e9
    strategies = [row.strategy for row in plan.rows]
    assert strategies[0] is Strategy.none
    assert strategies[-1] is Strategy.fsdp2
    assert strategies == sorted(strategies, key=[Strategy.none, Strategy.fsdp2].index)
    assert plan.epoch.epochs == 3


def test_hours_and_tokens_follow_from_the_steps():
    plan = planned("trainer.max_epochs=4", mfu=0.5, peak=2e9)
    one = plan.rows[0]
    assert one.steps == 8
    assert one.step_seconds == pytest.approx(plan.work.flops(1) / 1e9 + 0.002, rel=0.01)  # and the update
    assert one.hours == pytest.approx(4 * 8 * one.step_seconds / 3600)
    assert one.tokens_per_second == pytest.approx(plan.epoch.tokens / (8 * one.step_seconds))
    assert [row.batch for row in plan.rows] == [1, 2, 4, 8]


def test_own_figures_replace_those_of_a_kind():
    plan = planned("trainer.precision=bf16-mixed", memory=1e9, per_node=2, node_bandwidth=7.0, network_bandwidth=5.0)
    found = plan.device
    assert (found.memory, found.per_node, found.node_bandwidth, found.network_bandwidth) == (1e9, 2, 7.0, 5.0)
    assert plan.peak == 989e12
    assert planned().peak == 67e12  # the tutorial is trained in float32


def test_the_text_is_narrow_and_names_what_it_assumes():
    text = plan_text(planned("model.hidden_size=1024", "model.layers=24", "model.heads=16", devices=1024, mfu=0.35))
    assert max(map(len, text.splitlines())) <= COLUMNS
    for assumed in (
        "35% (--mfu) of 67 TFLOP/s",
        "450 GB/s within a node of 8",
        "80% are",
        "Hours are those of training",
    ):
        assert assumed in " ".join(text.split())
    assert "From 16 devices on some have nothing to do: an epoch has 8 rows." in text


def test_a_missing_gpu_is_replaced_by_a_named_kind(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    settings = ("trainer=ddp", "trainer.accelerator=gpu")
    assert planned(*settings).rows[1].strategy is Strategy.ddp
    with pytest.raises(UserError, match="trainer.accelerator=gpu: this machine has none; name the devices: --device"):
        planned(*settings, device="here")


def test_no_random_state_is_used():
    before = torch.random.get_rng_state()
    planned()
    assert torch.equal(torch.random.get_rng_state(), before)


def test_the_script_measures_this_machine_and_leaves_nothing_behind(script, tmp_path):
    done = script("plan.py", "--devices", "4", *QUICK)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert list(tmp_path.iterdir()) == []
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= COLUMNS
    assert [line.split()[:2] for line in lines if re.match(r" +\d", line)] == [["1", "one"], ["2", "ddp"], ["4", "ddp"]]
    assert "Measured on this machine: a batch takes" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--device", "h10"], "error: --device h10: no such kind; did you mean h100? the kinds are here, a100,"),
        (["--mfu", "0"], "error: --mfu 0: must be above 0 and at most 1"),
        (["--mfu", "1.5"], "error: --mfu 1.5: must be above 0 and at most 1"),
        (["--devices", "0"], "error: --devices 0: must be from 1 to"),
        (["--memory", "-1"], "error: --memory -1: must be above 0"),
        (["-m", "seed=1,2"], "error: -m: a plan is of one run, not of a sweep"),
        (["seed=1,2"], "error: seed=1,2: several values"),
        (["resume=outputs/x"], "error: resume=outputs/x: a plan is of a new run"),
        (["resume=auto"], "error: resume=auto: a plan is of a new run"),
        (["--fast"], "error: --fast: no such option"),
        (["optimizer.lrr=1"], "error: optimizer.lrr: no such setting; did you mean optimizer.lr?"),
        (
            ["--device", "h100", "trainer.precision=64-true"],
            "error: trainer.precision=64-true: no figure for this kind",
        ),
    ],
)
def test_a_mistake_is_one_line(capsys, arguments, message):
    assert command.main([*arguments, *(each for each in QUICK if "trainer" in arguments[-1])]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith(message), shown.err
    assert shown.err.count("\n") == 1
