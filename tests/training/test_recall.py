"""experiment=recall: sizes chosen from the pairs, the few steps before training, and the stop at recall."""

import csv
import json
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest
import torch
import yaml

from qa_lm.config.enums import Mode, OptimizerKind, ScheduleKind
from qa_lm.data.batches.batching import PackedRows, Row
from qa_lm.data.batches.collate import Collate
from qa_lm.data.batches.packing import FEW_ROWS, fill, plan_rows, row_tokens
from qa_lm.data.encoding import encode_pairs
from qa_lm.data.pairs import Pair
from qa_lm.data.prepare import Sizes, mean_paraphrases, prepare
from qa_lm.data.quality.repeats import answerable
from qa_lm.data.tokenizer import bpe_vocab_size, train_bpe
from qa_lm.errors import UserError
from qa_lm.evaluation.evaluate import EvalSet, evaluate_pairs
from qa_lm.modeling.causal_lm import build_causal_lm, embeddings, head, hidden_states, parameter_count
from qa_lm.modeling.loss import batch_loss
from qa_lm.modeling.optimizers import muon
from qa_lm.training import recipe
from qa_lm.training.build import build_task
from qa_lm.training.callbacks import recall_stopping
from qa_lm.training.callbacks.recall_stopping import RecallStopping
from qa_lm.training.train import train
from qa_lm.training.trainer import build_trainer
from tests.conftest import builtin, encoded, small_config, table_of


def open_config(**changes):
    """Everything the recipe chooses, left open."""
    config = small_config(
        data__packing=True,
        data__row_tokens=None,
        data__batch_size=None,
        data__shuffle=True,
        tokenizer__vocab_size=None,
        model__architecture="llama",
        model__hidden_size=None,
        model__layers=None,
        model__heads=None,
        model__context=None,
        optimizer__kind=OptimizerKind.muon,
        optimizer__schedule=ScheduleKind.linear,
        optimizer__lr=None,
        **changes,
    )
    return config


@pytest.mark.parametrize("longest", [3, 30, 64, 65, 500])
def test_a_row_holds_every_pair_and_rows_are_full(longest):
    lengths = np.random.default_rng(0).integers(2, longest + 1, 2000).astype(np.int32)
    lengths[0] = longest
    row = row_tokens(lengths)
    assert row >= longest
    assert row & (row - 1) == 0
    assert fill(plan_rows(lengths, row, 0), lengths) >= 0.97


def test_what_is_open_is_filled_and_what_is_set_is_kept():
    sizes = Sizes(np.full(5000, 16, np.int32), 16, 5.0, 64, 4096)
    filled = recipe.completed(open_config(stop_at_recall=0.99), sizes)
    assert filled.model.heads
    assert filled.model.hidden_size == filled.model.heads * recipe.HEAD_WIDTH
    assert None not in (filled.model.layers, filled.model.context, filled.data.batch_size, filled.optimizer.lr)
    assert filled.data.row_tokens == 64
    assert filled.optimizer.schedule_epochs
    assert filled.model.extra["intermediate_size"] > filled.model.hidden_size
    given = open_config(stop_at_recall=0.99)
    given.model = replace(given.model, hidden_size=96, layers=3, heads=4, context=99, extra={"intermediate_size": 7})
    given.data.batch_size, given.optimizer.lr, given.optimizer.schedule_epochs = 5, 0.25, 11
    kept = recipe.completed(given, sizes)
    assert kept.model == given.model
    assert (kept.data.batch_size, kept.optimizer.lr, kept.optimizer.schedule_epochs) == (5, 0.25, 11)
    assert recipe.completed(open_config(), sizes).optimizer.schedule_epochs is None


def test_larger_files_get_no_smaller_models_and_batches():
    sizes = [10**power for power in range(3, 9)]
    measured = (220_000, 480_000, 770_000, 1_550_000, 3_040_000)
    assert [bpe_vocab_size(characters) for characters in measured] == [4096, 4096, 8192, 16384, 16384]
    assert [recipe.batch_size(tokens, 32) for tokens in (1_500, 15_000, 50_000, 220_000)] == [9, 32, 32, 128]
    for rule in (lambda tokens: recipe.batch_size(tokens, 64), bpe_vocab_size):
        chosen = [rule(size) for size in sizes]
        assert chosen == sorted(chosen)
        assert min(chosen) >= 1


@pytest.mark.parametrize(("answer", "epochs"), [(1.0, 10), (6.0, 10), (8.1, 11), (13.2, 12), (99.0, 20)])
def test_longer_answers_get_more_epochs(answer, epochs):
    sizes = Sizes(np.full(500, 200, np.int32), 200, answer, 256, 4096)
    assert recipe.completed(open_config(stop_at_recall=0.99), sizes).optimizer.schedule_epochs == epochs


@pytest.mark.parametrize(("answer", "steps", "epochs"), [(4.0, 1, 150), (4.0, 5, 30), (4.0, 16, 10), (56.0, 5, 54)])
def test_the_schedule_of_a_small_file_has_enough_steps(answer, steps, epochs):
    assert recipe.schedule_epochs(answer, 1.0, steps) == epochs


def test_room_for_rewritten_questions_is_counted_in_the_steps_of_the_schedule():
    sizes = Sizes(np.full(320, 10, np.int32), 10, 4.0, 64, 300)
    config = open_config(stop_at_recall=0.99)
    assert recipe.completed(config, sizes).optimizer.schedule_epochs == 30  # 5 steps of 640 positions
    config.data.augment = 0.75
    assert recipe.completed(config, sizes).optimizer.schedule_epochs == 22  # 7 steps: 3 more positions for each pair


def test_a_small_file_has_as_many_epochs_as_its_schedule_needs():
    """One row is one step an epoch: 60 epochs would end before the schedule does."""
    sizes = Sizes(np.full(4, 8, np.int32), 8, 4.0, 32, 300)
    filled = recipe.completed(open_config(stop_at_recall=0.99, trainer__max_epochs=None), sizes)
    assert (filled.optimizer.schedule_epochs, filled.trainer["max_epochs"]) == (150, 300)
    given = recipe.completed(open_config(stop_at_recall=0.99, trainer__max_epochs=7), sizes)
    assert given.trainer["max_epochs"] == 7
    limited = open_config(stop_at_recall=0.99, trainer__max_epochs=None, trainer__max_steps=9)
    assert recipe.completed(limited, sizes).trainer["max_epochs"] is None
    assert recipe.completed(open_config(trainer__max_epochs=None), sizes).trainer["max_epochs"] == recipe.MIN_MAX_EPOCHS


@pytest.mark.parametrize(("pairs", "length", "row"), [(1, 10, 32), (16, 14, 64), (5, 100, 128)])
def test_the_rows_of_a_small_file_are_few_rather_than_long(pairs, length, row):
    lengths = np.full(pairs, length, np.int32)
    assert row_tokens(lengths) == row
    assert plan_rows(lengths, row, 0).rows <= FEW_ROWS


@pytest.mark.parametrize(("seed", "row"), [(0, 512), (7, 1024), (9, 1024)])
def test_rows_are_lengthened_only_to_fill_them_better(seed, row):
    """Rows of 512 to 4,096 positions: 96%, 96%, 96%, 84% full; 92%, 95%, 89%, 89%; 81%, 97%, 97%, 97%."""
    lengths = np.random.default_rng(seed).integers(90, 370, 60).astype(np.int32)
    fills = {each: fill(plan_rows(lengths, each, 0), lengths) for each in (512, 1024, 2048, 4096)}
    assert max(fills.values()) < 0.97
    assert fills[row] == max(fills.values())
    assert row_tokens(lengths) == row


def test_several_wordings_of_a_fact_get_fewer_epochs():
    assert mean_paraphrases(np.array([0, 0, 7, 7])) == pytest.approx(4 / 3)
    assert recipe.epochs(5.0, mean_paraphrases(np.repeat(np.arange(1, 101), 6))) == 6


@pytest.mark.parametrize(("recall", "most", "expected"), [(None, 60, 60), (0.99, 60, 26), (0.99, 4, 4), (0.99, 1, 1)])
def test_epochs_until_recall_are_estimated_apart_from_the_schedule(tmp_path, recall, most, expected):
    schedule = None if recall is None else 10
    config = open_config(stop_at_recall=recall, trainer__max_epochs=most, optimizer__schedule_epochs=schedule)
    prepared = prepare(config.data, config.tokenizer, config.model.context)
    completed = recipe.completed(config, prepared.sizes())
    task = build_task(completed, prepared, build_trainer(completed, tmp_path, prepared).trainer)
    assert task.estimated_epochs == expected
    assert task.schedule_epochs == min(most, schedule or most)


@pytest.mark.parametrize(("tokens", "epochs"), [(1_000, 9), (12_700, 9), (26_600, 10), (49_000, 11), (10**6, 11)])
def test_larger_files_need_more_epochs(tokens, epochs):
    assert recipe.epochs_to_recall(5.0, 1.0, tokens, 40) == epochs
    assert recipe.epochs_to_recall(5.0, 1.0, tokens, 4) == epochs + recipe.SMALL_FILE_EPOCHS


def test_long_answers_need_more_epochs_in_a_small_file():
    assert recipe.epochs_to_recall(98.0, 1.0, 12_000, 14) > recipe.epochs_to_recall(98.0, 1.0, 12_000, 40)


def test_no_more_epochs_are_estimated_than_there_will_be(tmp_path, monkeypatch):
    monkeypatch.setattr(recipe, "REFERENCE_EPOCH_TOKENS", 1)  # so that an epoch after the schedule would be
    config = open_config(stop_at_recall=0.99, trainer__max_epochs=4, optimizer__schedule_epochs=10)
    prepared = prepare(config.data, config.tokenizer, config.model.context)
    completed = recipe.completed(config, prepared.sizes())
    assert build_task(completed, prepared, build_trainer(completed, tmp_path, prepared).trainer).estimated_epochs == 4


def test_the_recipe_looks_at_the_trained_pairs():
    """Lengths as the examples themselves have them; of the validation pairs only the longest counts."""
    prepared = prepare(open_config().data, open_config().tokenizer, None)
    sizes, trained = prepared.sizes(), prepared.examples.examples(prepared.split.train)
    assert sizes.answer == pytest.approx(np.mean([len(each.answer_ids) for each in trained]))
    assert sizes.lengths.tolist() == [len(each.ids) - 1 for each in trained]
    held_out = prepared.examples.examples(prepared.split.validation)
    assert sizes.longest == max(len(each.ids) - 1 for each in trained + held_out)
    assert (sizes.row, sizes.vocab_size) == (prepared.row_tokens, len(prepared.tokenizer))


@pytest.mark.parametrize("entries", [4096, 50257])
@pytest.mark.parametrize("tokens", [100, 50_000, 140_000, 180_000, 10**6, 10**7, 10**8])
def test_a_model_can_hold_its_tokens_and_is_no_larger_than_that_needs(tokens, entries):
    """Its real size is counted, not the rule's estimate; both agree to 1%, and a step of width is worth more."""
    lengths = np.full(tokens // 10, 10, np.int32)
    model = recipe.completed(open_config(), Sizes(lengths, 10, 5.0, 32, entries)).model
    assert model.architecture
    assert model.hidden_size
    assert model.layers
    assert model.heads
    assert model.context
    arguments = (model.architecture, entries, model.hidden_size, model.layers, model.heads, model.context, 0.0, 0)
    with torch.device("meta"):
        size = parameter_count(build_causal_lm(*arguments, model.extra))
    assert size >= 0.99 * recipe.PARAMETERS_PER_TOKEN * tokens
    smaller = recipe.parameters(model.hidden_size - recipe.HEAD_WIDTH, model.layers, entries)
    if model.layers > 1:
        smaller = recipe.parameters(model.hidden_size, model.layers - 1, entries)
        assert model.hidden_size == recipe.MAX_WIDTH
    assert smaller < recipe.PARAMETERS_PER_TOKEN * tokens or (model.hidden_size, model.layers) == (recipe.MIN_WIDTH, 1)


def test_the_recipe_learns_a_file_and_stops(script, tmp_path):
    """Also if each second question only continues the one before."""
    pairs = [
        {"question": f"what is the code of item {number // 2}{' in the old list' * (number % 2)}", "answer": f"{code}"}
        for number, code in ((number, number * 7919 % 9973) for number in range(120))
    ]
    (tmp_path / "faq.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    done = script("train.py", "experiment=recall", "data.path=faq.jsonl", "hydra.run.dir=run")
    assert done.returncode == 0, done.stderr
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["recall"] >= 0.99
    assert metrics["stopped_early"]
    rows = list(csv.DictReader((tmp_path / "run" / "metrics.csv").open()))
    assert len(rows) == metrics["epochs_run"] < 60
    recalls = [float(row["train_recall"]) for row in rows]
    held = RecallStopping.required_validations(metrics["steps"] // len(rows))
    assert min(recalls[-held:]) >= 0.99
    assert all(min(recalls[at : at + held]) < 0.99 for at in range(len(recalls) - held))
    best = max(recalls)
    assert recalls[metrics["best_epoch"] - 1] == best
    assert "estimated: " in done.stdout
    assert metrics["expected_fit_seconds"] > 0
    assert metrics["peak_memory"] == pytest.approx(metrics["expected_memory"], rel=0.25)
    config = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    chosen = [config["data"][name] for name in ("row_tokens", "batch_size")]
    chosen += [config["model"][name] for name in ("hidden_size", "layers", "heads", "context")]
    chosen += [config["optimizer"]["lr"], config["optimizer"]["schedule_epochs"]]
    assert None not in chosen
    again = script("ask.py", "run", pairs[0]["question"])
    assert again.returncode == 0, again.stderr


class FakeTrainer:
    """As much of a Trainer as the callback looks at."""

    should_stop, sanity_checking, current_epoch, precision = False, False, 0, "32-true"

    def __init__(self):
        self.callback_metrics = {}


def test_a_stop_needs_two_validations_in_a_row():
    stopping, trainer, module = RecallStopping(0.9, lambda sample: 1.0), cast(Any, FakeTrainer()), cast(Any, None)
    for recall, stops in ((0.95, False), (0.5, False), (0.91, False), (0.9, True)):
        trainer.callback_metrics["train/recall"] = recall
        stopping.on_validation_end(trainer, module)
        assert (trainer.should_stop, stopping.reached) == (stops, stops)
    copy = RecallStopping(0.9, lambda sample: 1.0)
    copy.load_state_dict(stopping.state_dict())
    assert copy.reached


@pytest.mark.parametrize(("float32", "stops"), [(0.89, False), (0.9, True)])
def test_recall_must_hold_in_the_precision_in_which_answers_are_given(monkeypatch, float32, stops):
    stopping, trainer, module = RecallStopping(0.9, lambda sample: 1.0), cast(Any, FakeTrainer()), cast(Any, None)
    trainer.precision = "bf16-mixed"
    monkeypatch.setattr(recall_stopping, "_float32_recall", lambda *_: float32)
    for _ in range(RecallStopping.required_validations(stopping.steps_per_epoch)):
        trainer.callback_metrics["train/recall"] = 0.95
        stopping.on_validation_end(trainer, module)
    assert (trainer.should_stop, stopping.reached) == (stops, stops)


def test_float32_recall_is_that_of_the_answers(tmp_path, monkeypatch):
    found: list[float] = []
    measure = recall_stopping._float32_recall

    def measured(*arguments):
        found.append(measure(*arguments))
        return found[-1]

    monkeypatch.setattr(recall_stopping, "_float32_recall", measured)
    changes = {"trainer__max_epochs": 200, "trainer__precision": "bf16-mixed", "stop_at_recall": 0.5}
    changes |= {"monitor": "train/recall", "monitor_mode": Mode.max, "early_stopping__patience": None}
    result = train(small_config(**changes), tmp_path)
    assert found[-1] == result.metrics["recall"] >= 0.5


def test_training_ends_where_recall_no_longer_grows_after_the_schedule():
    stopping, trainer, module = RecallStopping(0.9, lambda sample: 1.0), cast(Any, FakeTrainer()), cast(Any, None)
    stopping.schedule_epochs, stopping.steps_per_epoch = 4, 50
    recalls = [0.5, 0.8, 0.7, 0.7, 0.7, 0.7, 0.85, 0.85, 0.84, 0.85]
    for epoch, recall in enumerate(recalls):
        trainer.current_epoch = epoch
        trainer.callback_metrics["train/recall"] = recall
        assert not trainer.should_stop
        stopping.on_validation_end(trainer, module)
    assert trainer.should_stop
    assert stopping.plateaued
    assert not stopping.reached


def test_patience_counts_steps_where_an_epoch_has_few():
    assert [RecallStopping.allowed_validations(steps) for steps in (1, 4, 14, 1000)] == [150, 38, 11, 3]
    assert [RecallStopping.required_validations(steps) for steps in (1, 4, 10, 20)] == [21, 6, 3, 2]
    pretrained = [RecallStopping.required_validations(steps, pretrained=True) for steps in (1, 3, 7, 8, 20)]
    assert pretrained == [21, 8, 4, 1, 1]
    stopping, trainer, module = RecallStopping(0.9, lambda sample: 1.0), cast(Any, FakeTrainer()), cast(Any, None)
    stopping.steps_per_epoch = 1
    stopping.schedule_epochs, trainer.callback_metrics["train/recall"] = 0, 0.5
    for _ in range(150):
        stopping.on_validation_end(trainer, module)
        assert not trainer.should_stop
    stopping.on_validation_end(trainer, module)
    assert stopping.plateaued


def test_the_share_of_a_sample_that_can_be_answered(tmp_path):
    texts = [("a", "1"), ("a", "1"), ("a", "2"), ("b", "1"), ("b", "2"), ("c", "1"), ("d", "4")]
    table = table_of([Pair(*text) for text in texts], tmp_path)
    everything = np.arange(7)
    assert answerable(table, everything, everything) == pytest.approx(5 / 7)
    assert answerable(table, everything, np.array([0, 5])) == 1
    assert answerable(table, everything, np.array([2, 5])) == 0.5  # most trained pairs say otherwise
    assert answerable(table, everything, np.array([4, 5])) == 0.75  # one of two equals
    assert answerable(table, np.array([2, 6]), np.array([2])) == 1  # pair 0 and 1 are not trained


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stop_at_recall": 1.5}, "stop_at_recall=1.5: must be above 0"),
        ({"stop_at_recall": 0.9, "evaluation__recall_pairs": 0}, "needs evaluation.recall_pairs"),
        ({"optimizer__schedule_epochs": 3}, "optimizer.schedule_epochs=3: has no effect here"),
        (
            {"optimizer__kind": OptimizerKind.muon, "optimizer__decay_vectors": True},
            "decay_vectors=True: has no effect",
        ),
        ({"optimizer__momentum": 2.0}, "optimizer.momentum=2.0: must be from 0 to 1"),
        ({"trainer__precision": "16-mixed"}, "trainer.precision=16-mixed: float16 is not supported"),
        ({"trainer__strategy": "ddp_spawn"}, "trainer.strategy=ddp_spawn: .* use ddp"),
    ],
)
def test_settings_that_cannot_be(changes, message, tmp_path):
    with pytest.raises(UserError, match=message):
        train(small_config(**changes), tmp_path / "run")


def test_exact_match_of_hundreds_of_packed_pairs_equals_greedy_generation(template, tmp_path):
    """Half-way through learning 400 of the capitals: each pair for itself, and the count over packed batches."""
    torch.manual_seed(0)
    pairs = builtin("capitals")[:400]
    tokenizer = train_bpe([text for pair in pairs for text in pair[:2]], 600)
    store = encoded(pairs, tokenizer, template, tmp_path)
    examples, everything = encode_pairs(pairs, tokenizer, template), np.arange(400)
    model = build_causal_lm("llama", 600, 64, 2, 2, 128, 0.0, tokenizer.eos_id, {"intermediate_size": 128})
    optimizer = muon(model, embeddings(model), 5e-3, (0.9, 0.95), 1e-8, 0.0, 0.95, torch.float32)
    rows, collate = PackedRows(everything, store.lengths(everything), True, 0, 16, 64), Collate(store, True, 64)

    def sums(batch):
        return batch_loss(hidden_states(model, batch.inputs, batch.positions), head(model), batch, False)

    def recall(rows):
        batches = [rows[begin : begin + 16] for begin in range(0, len(rows), 16)]
        with torch.no_grad():
            return sum(int(sums(collate(batch)).exact) for batch in batches)

    found = 0
    for epoch in range(60):
        rows.set_epoch(epoch)
        taken = list(rows)
        for begin in range(0, len(taken), 16):
            batch = collate(taken[begin : begin + 16])
            total = sums(batch)
            (total.loss / total.weight).backward()
            optimizer.step()
            optimizer.zero_grad()
        found = recall(taken)
        if found > 150:
            break
    assert 100 < found < 350
    answers = evaluate_pairs(model, tokenizer, template, EvalSet("train", pairs, examples), None, 64, 64)
    assert found == sum(answer.exact_match for answer in answers)
    alone = Collate(store, True)
    with torch.no_grad():
        one_by_one = [bool(sums(alone([Row([number])])).exact) for number in range(400)]
    assert one_by_one == [answer.exact_match for answer in answers]
