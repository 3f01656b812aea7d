"""The ledger: what each step said of its pairs, kept whole; and what a person is told of them."""

import json
import random
import textwrap
from itertools import chain
from types import SimpleNamespace
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import torch.nn.functional as F

from qa_lm.data.batches.batching import Row
from qa_lm.data.batches.collate import Collate
from qa_lm.data.batches.datamodule import PairsDataModule
from qa_lm.data.pairs import Pair
from qa_lm.data.splits.draw import Split
from qa_lm.data.tokenizer import train_bpe
from qa_lm.ledger.callback import Ledger
from qa_lm.ledger.file import write_ledger
from qa_lm.modeling.module import CausalLMModule
from qa_lm.training.train import train
from tests.conftest import SHARED_DATA, builtin, encoded, read, small_config, table_of
from tests.modeling.test_modeling import build

ROW, EPOCHS, LONG = 64, 16, 45
TRAINED = np.array([0, 1, 2, 4, 5, 6, 7, 8, 9])  # a place in the table is not a place among the trained


@pytest.fixture(scope="module")
def store(template, tmp_path_factory):
    pairs = [Pair(pair.question, pair.answer[:8]) for pair in builtin("tutorial")]  # learnt in a few epochs
    bpe = train_bpe([text for pair in pairs for text in pair[:2]], 300)
    return encoded(pairs, bpe, template, tmp_path_factory.mktemp("store"))


def network():
    return build(vocab_size=300)


def optimizer_of(model):
    return torch.optim.AdamW(model.parameters(), lr=1e-2, eps=1e-3)


def fitted(store, packed, batch_size, accumulate, *callbacks, path=None, epochs=EPOCHS):
    """A run with a ledger, in the order of the file."""
    split = Split(TRAINED[::-1].copy(), TRAINED[:2], TRAINED[:0], np.zeros(2, np.int8))
    data = PairsDataModule(store, split, batch_size, False, 0, True, ROW if packed else None)
    ledger = Ledger()
    trainer = pl.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        accumulate_grad_batches=accumulate,
        logger=False,
        callbacks=[ledger, *callbacks],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    module = CausalLMModule(network(), optimizer_of, lambda step: 1.0, False, answer_bytes=1)
    trainer.fit(module, datamodule=data, ckpt_path=path)
    return ledger, module, [row.examples for row in data.train_rows]


def by_hand(store, rows, window):
    """The same training one pair at a time, by transformers' own logits: losses and exactness, (epochs, pairs)."""
    model = network()
    optimizer = optimizer_of(model)
    losses, exact = np.full((2, EPOCHS, 10), np.nan)
    for epoch in range(EPOCHS):
        for begin in range(0, len(rows), window):
            of_tokens = []
            for pair in chain(*rows[begin : begin + window]):
                batch = Collate(store, True)([Row([pair])])
                logits, answer = model(batch.inputs).logits[0], batch.in_answer[0]
                of_tokens.append(F.cross_entropy(logits, batch.targets[0], reduction="none"))
                losses[epoch, pair] = of_tokens[-1][answer].mean().item()
                exact[epoch, pair] = (logits.argmax(-1) == batch.targets[0])[answer].all()
            torch.cat(of_tokens).mean().backward()
            optimizer.step()
            optimizer.zero_grad()
    return losses[:, TRAINED], exact[:, TRAINED]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(("batch_size", "accumulate"), [(1, 1), (2, 2)])
def test_each_step_is_kept_as_it_was_before_its_update(store, packed, batch_size, accumulate):
    """To 1e-3 nats: sixteen epochs of rounding errors."""
    ledger, _, rows = fitted(store, packed, batch_size, accumulate)
    losses, exact = by_hand(store, rows, batch_size * accumulate)
    assert 0 < exact.mean() < 1
    assert ledger.trained.tolist() == TRAINED.tolist()
    np.testing.assert_allclose(np.stack(ledger.losses), losses, atol=1e-3)
    np.testing.assert_array_equal(np.stack(ledger.exact), exact)


class Saved(pl.Callback):
    """Saves in the middle of an epoch, and notes what the steps said."""

    def __init__(self, path, epoch, batch):
        self.path, self.when, self.after = path, (epoch, batch), []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if self.path.exists():
            self.after.append((trainer.current_epoch, pl_module.step_pairs))
        if (trainer.current_epoch, batch_idx) == self.when:
            trainer.save_checkpoint(self.path)


def test_a_ledger_restored_in_mid_epoch_ends_as_one_never_interrupted(store, tmp_path):
    saved = Saved(tmp_path / "middle.ckpt", 2, 3)
    whole, module, _ = fitted(store, False, 1, 1, saved)
    assert len(saved.after) == (EPOCHS - 2) * len(TRAINED) - 4
    state = torch.load(saved.path, weights_only=True)["callbacks"]["Ledger"]
    assert int((state["exact"][2] >= 0).sum()) == 4
    restored = Ledger()
    restored.trained = whole.trained
    restored.load_state_dict(state)
    for epoch, step in saved.after:
        module.step_pairs = step
        trainer: Any = SimpleNamespace(current_epoch=epoch)
        restored.on_train_batch_end(trainer, module, None, None, 0)
    restored.state_dict()
    np.testing.assert_array_equal(np.stack(restored.losses), np.stack(whole.losses))
    np.testing.assert_array_equal(np.stack(restored.exact), np.stack(whole.exact))


def test_a_run_that_goes_on_from_a_finished_epoch_has_the_same_ledger(store, tmp_path):
    saved = Saved(tmp_path / "end.ckpt", 2, len(TRAINED) - 1)
    whole, _, _ = fitted(store, False, 1, 1, saved)
    resumed, _, _ = fitted(store, False, 1, 1, path=saved.path)
    assert len(resumed.losses) == EPOCHS
    np.testing.assert_allclose(np.stack(resumed.losses), np.stack(whole.losses), atol=1e-4)


def test_steps_are_moved_in_several_parts(store, monkeypatch):
    whole, _, _ = fitted(store, False, 1, 1)
    monkeypatch.setattr("qa_lm.ledger.callback.STEPS", 2)
    waiting: list[int] = []

    class Watching(pl.Callback):
        def on_train_batch_end(self, trainer, *_):
            waiting.extend(len(each._steps) for each in trainer.callbacks if isinstance(each, Ledger))

    parted, _, _ = fitted(store, False, 1, 1, Watching())
    assert set(waiting) == {0, 1}
    np.testing.assert_array_equal(np.stack(parted.losses), np.stack(whole.losses))


@pytest.fixture(scope="module")
def long_run(tmp_path_factory):
    """Most pairs are learnt in it, and not all."""
    config = small_config(trainer__max_epochs=LONG, early_stopping__patience=None)
    return train(config, tmp_path_factory.mktemp("run"))


def ledger_of(folder):
    return pq.read_table(folder / "ledger.parquet").to_pylist()


@pytest.mark.slow
@pytest.mark.parametrize("packing", ["true", "false"])
def test_two_processes_keep_what_one_does(script, tmp_path, packing):
    """Validations in the middle of an epoch too, after which all processes know the same."""
    common = [
        *("tokenizer=bpe", "tokenizer.vocab_size=300", "model=tiny", "data.shuffle=true", "data.row_tokens=64"),
        *(f"data.packing={packing}", "trainer.accelerator=cpu", "trainer.max_epochs=3", "optimizer.lr=0.5"),
        *("data.train_fraction=0.7", "loss_weighting=token", "trainer.precision=32-true", "optimizer.eps=1"),
        "early_stopping.patience=null",
    ]
    one = script("train.py", *common, "data.batch_size=2", "hydra.run.dir=one")
    two = script(
        *("train.py", *common, "data.batch_size=1", "trainer.devices=2", "trainer.strategy=ddp", "hydra.run.dir=two"),
        "trainer.val_check_interval=1",
    )
    assert (one.returncode, two.returncode) == (0, 0), one.stderr + two.stderr
    rows = ledger_of(tmp_path / "one")
    assert len(rows) == 7
    for alone, together in zip(rows, ledger_of(tmp_path / "two"), strict=True):
        assert len(alone["losses"]) == 3
        assert together["losses"] == pytest.approx(alone["losses"], abs=1e-4)
        assert together["exact"] == alone["exact"]
        assert together["place"] == alone["place"]


def test_the_files_of_a_run(long_run):
    rows = ledger_of(long_run.folder)
    summary = json.loads((long_run.folder / "ledger_summary.json").read_text())
    learnt = [row for row in rows if row["learnt_at"] is not None]
    assert len(rows) == summary["pairs"] == 8
    assert 0 < len(learnt) == summary["learnt"] < 8
    assert len(learnt) + summary["never_learnt"] == 8
    assert summary["epochs"] == LONG
    by_place = {f"tutorial:{line}": pair for line, pair in enumerate(builtin("tutorial"), start=1)}
    for row in rows:
        assert (row["question"], row["answer"]) == by_place[row["place"]][:2]
        assert len(row["losses"]) == len(row["exact"]) == LONG
        assert row["losses"][-1] == row["last_loss"] < row["losses"][0]
        if row["learnt_at"]:
            assert all(row["exact"][row["learnt_at"] - 1 :])
            assert row["learnt_at"] == 1 or not row["exact"][row["learnt_at"] - 2]
    assert summary["worst"] == []  # eight right pairs
    assert summary["note"].startswith("Fewer than 200 pairs were trained, too few to distinguish")


def test_a_run_ended_in_mid_epoch_knows_nothing_of_the_rest(tmp_path):
    result = train(small_config(trainer__max_steps=11), tmp_path / "run")
    rows = ledger_of(result.folder)
    assert [len(row["losses"]) for row in rows] == [2] * 8
    assert sum(row["losses"][1] is None for row in rows) == 5
    assert all((row["losses"][1] is None) == (row["exact"][1] is None) for row in rows)
    assert all(row["last_loss"] in row["losses"] for row in rows)


def test_without_a_ledger_the_run_is_the_same(tmp_path):
    kept, none = (train(small_config(ledger=ledger), tmp_path / str(ledger)) for ledger in (True, False))
    assert (kept.folder / "metrics.csv").read_bytes() == (none.folder / "metrics.csv").read_bytes()
    assert not (none.folder / "ledger.parquet").exists()


def test_the_script_shows_the_worst_as_a_table_and_as_json(script, long_run):
    worst = sorted(ledger_of(long_run.folder), key=lambda row: -row["suspicion"])
    done = script("ledger.py", str(long_run.folder), "--all", "--worst", "3")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    summary = json.loads((long_run.folder / "ledger_summary.json").read_text())
    assert lines[0].split()[:3] == ["place", "question", "answer"]
    assert [line.split()[0] for line in lines[2:5]] == [row["place"] for row in worst[:3]]
    assert lines[5] == ""
    assert lines[6].startswith(f"{summary['learnt']} of 8 trained pairs were learnt in {LONG} epochs; ")
    done = script("ledger.py", str(long_run.folder))
    assert (done.returncode, done.stdout.splitlines()[:2]) == (0, ["No pair to check.", ""])
    assert done.stdout.splitlines()[2:] == [lines[6], *textwrap.wrap(summary["note"], 120)]
    done = script("ledger.py", str(long_run.folder), "--json", "--all")
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert rows == sorted(ledger_of(long_run.folder), key=lambda row: -row["suspicion"])
    done = script("ledger.py", str(long_run.folder), "--never", "--json")
    assert [json.loads(line) for line in done.stdout.splitlines()] == [r for r in rows if r["learnt_at"] is None]


def written(pairs, folder, never=()):
    """The summary of a run that learnt these pairs in its second epoch."""
    exact = np.ones(len(pairs), np.int8)
    exact[list(never)] = 0
    losses = [np.full(len(pairs), loss, np.float32) for loss in (2.0, 0.1)]
    write_ledger(folder, table_of(pairs, folder), np.arange(len(pairs)), losses, [np.zeros_like(exact), exact])
    return json.loads((folder / "ledger_summary.json").read_text())


def with_foreign_answers(pairs, places):
    """The pairs, those at the places with each other's answers."""
    answers = [pairs[place].answer for place in [*places[1:], places[0]]]
    changed = list(pairs)
    for place, answer in zip(places, answers, strict=True):
        changed[place] = changed[place]._replace(answer=answer)
    return changed


def test_only_wrong_answers_are_listed_where_answers_resemble_one_another(tmp_path):
    pairs, places = builtin("capitals")[:300], [7, 77, 150, 222]
    summary = written(with_foreign_answers(pairs, places), tmp_path)
    assert {row["place"] for row in summary["worst"]} == {f"pairs:{place + 1}" for place in places}
    assert all(row["why"].endswith("unlike the answers to similar questions") for row in summary["worst"])
    assert summary["note"] == ""


def test_nothing_is_listed_of_right_pairs(tmp_path):
    assert written(builtin("capitals")[:300], tmp_path)["worst"] == []


def test_where_answers_do_not_resemble_one_another_only_the_never_learnt_are_listed(tmp_path):
    letters = random.Random(0)

    def text():
        return " ".join("".join(letters.choices("abcdefghij", k=6)) for _ in range(4))

    pairs = [Pair(text(), text()) for _ in range(240)]
    summary = written(pairs, tmp_path, never=(3, 99))
    assert {row["place"]: row["why"] for row in summary["worst"]} == {
        "pairs:4": "never learnt",
        "pairs:100": "never learnt",
    }
    assert summary["note"].startswith("In this file similar questions do not have similar answers")
    many = written(pairs, tmp_path, never=range(0, 240, 2))
    assert many["worst"] == []  # a run that learnt half says nothing about any of them


def test_a_contradiction_is_listed_however_few_pairs_there_are(tmp_path):
    pairs = [Pair("Who?", "Ada"), Pair("who", "Ada"), Pair("Who??", "Bob"), Pair("When?", "1901")]
    (row,) = written(pairs, tmp_path)["worst"]
    assert (row["place"], row["why"]) == ("pairs:3", "contradicts the same question at pairs:1")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "error: nowhere: no such folder; "),
        (["."], "error: .: not a run folder; "),
        (["begun"], "error: begun/ledger.parquet: does not exist; it is written when a run ends"),
        (["begun", "--worst", "0"], "error: --worst must be at least 1"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(script, tmp_path, arguments, message):
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / "config.yaml").touch()
    done = script("ledger.py", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(message)
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_wrong_answers_are_among_the_most_suspicious(script, tmp_path, seed):
    """Of 4,000 commands and their descriptions 3% get each other's command: four of five stand among the worst 5%."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"no real pairs at {SHARED_DATA}")
    pairs = read(SHARED_DATA / "tldr_en.jsonl.gz")[:4040]
    planted = random.Random(seed).sample(range(4000), 120)
    answers = [pairs[index].answer for index in [*planted[1:], planted[0]]]
    for index, answer in zip(planted, answers, strict=True):
        pairs[index] = pairs[index]._replace(answer=answer)
    for name, part in (("train", pairs[:4000]), ("held_out", pairs[4000:])):
        lines = [json.dumps({"question": pair.question, "answer": pair.answer}) for pair in part]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines))
    done = script(
        *("train.py", "experiment=recall", "data.path=train.jsonl", "data.validation_path=held_out.jsonl"),
        *("hydra.run.dir=run", "evaluation.max_pairs=0"),
    )
    assert done.returncode == 0, done.stderr
    worst = sorted(ledger_of(tmp_path / "run"), key=lambda row: -row["suspicion"])[:200]
    found = {int(row["place"].partition(":")[2]) - 1 for row in worst}
    assert len(found & set(planted)) >= 0.8 * 120
