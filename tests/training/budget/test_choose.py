"""Epochs are chosen from measured seconds; no clock runs here."""

from dataclasses import replace

import numpy as np
import pytest

from qa_lm.data.prepare import Sizes as DataSizes
from qa_lm.errors import UserError
from qa_lm.training.budget.choose import Times, Wanted, choose_epochs
from qa_lm.training.budget.smaller import smaller_model
from qa_lm.training.budget.ways_out import Sizes, ways_out
from qa_lm.training.recipe import completed
from tests.training.test_recall import open_config

SIZES = Sizes(
    body=400_000,
    head=800_000,
    width=192,
    feed_forward=512,
    vocabulary=4096,
    chosen_vocabulary=True,
    pairs=300,
    pretrained=False,
)
RECALL = Wanted(needed=12, schedule=10, most=60, until_recall=True, most_given=False, schedule_given=False)
HELD_OUT = Wanted(needed=10, schedule=10, most=10, until_recall=False, most_given=False, schedule_given=False)


def times(budget, before=20.0, epoch=10.0, after=10.0):
    return Times(budget, before, epoch, after)


@pytest.mark.parametrize(("budget", "epochs"), [(29, 0), (39.9, 0), (40, 1), (99, 6), (130, 10)])
def test_whole_epochs_fit_between_what_has_passed_and_what_follows(budget, epochs):
    assert times(budget).epochs == epochs
    assert times(budget).total(3) == 60


@pytest.mark.parametrize(
    ("budget", "wanted", "most", "schedule"),
    [
        (99, RECALL, 6, 6),  # too few for recall: the schedule ends where training ends
        (135, RECALL, 10, None),  # too few for recall, but not for the schedule
        (170, RECALL, 14, None),  # recall fits; training goes on up to the budget if it comes later
        (10_000, RECALL, 60, None),  # as without a budget
        (99, HELD_OUT, 6, 6),
        (10_000, HELD_OUT, 10, None),
        (99, replace(RECALL, schedule_given=True), 6, None),
        (99, replace(RECALL, most_given=True), None, None),
        (29, replace(RECALL, most_given=True), None, None),
    ],
)
def test_epochs_are_chosen_where_they_are_open(budget, wanted, most, schedule):
    choice = choose_epochs(times(budget), wanted, SIZES)
    assert (choice.most, choice.schedule) == (most, schedule)


def test_a_budget_that_is_long_enough_says_what_is_left_over():
    assert choose_epochs(times(200), RECALL, SIZES).lines == [
        "budget: 3m20s, of which 20s have passed and 10s are kept for the evaluation and the report: 17 epochs of 10s "
        "fit",
        "budget: recall is expected after 12 epochs; 50s are left over",
        "budget: chosen trainer.max_epochs=17",
    ]


def test_a_budget_that_is_too_short_for_recall_names_three_ways_out():
    lines = choose_epochs(times(90), RECALL, SIZES).lines
    assert lines[1:] == [
        "note: recall is expected after 12 epochs, for which 2m30s are needed",
        "  to need less: a smaller model: model.hidden_size=96 +model.extra.intermediate_size=256 saves up to 58% of "
        "an epoch, but may need more epochs",
        "  to need less: a smaller vocabulary: tokenizer.vocab_size=2048 saves up to 22% of an epoch",
        "  to need less: fewer pairs: data.train_pairs=150 of 300 saves about 50% of an epoch",
        "budget: chosen trainer.max_epochs=6, optimizer.schedule_epochs=6",
    ]


def test_epochs_that_were_given_stay_and_it_says_whether_they_fit():
    lines = choose_epochs(times(90), replace(HELD_OUT, most_given=True), SIZES).lines
    assert lines[1] == "note: training would take 10 epochs, for which 2m10s are needed"
    assert lines[-1] == "budget: the maximum of 10 epochs was given; training stops when the time is used"
    lines = choose_epochs(times(200), replace(HELD_OUT, most_given=True), SIZES).lines
    assert lines[1:] == ["budget: training takes at most 10 epochs; 1m10s are left over"]


def test_a_budget_without_room_for_an_epoch_is_refused():
    with pytest.raises(UserError) as error:
        choose_epochs(times(39), RECALL, SIZES)
    first, second = str(error.value).splitlines()
    assert first == (
        "budget.time=39s: too short for one epoch, with which the run takes 40s: 20s before training, 10s for the "
        "epoch, 10s for the evaluation and the report"
    )
    assert second.startswith("Use budget=40s; or: a smaller model: model.hidden_size=96 ")


def test_ways_out_of_a_pretrained_model_name_no_width():
    ways = ways_out(replace(SIZES, pretrained=True, vocabulary=50_257, chosen_vocabulary=False), 0.5)
    assert ways[0].startswith("a smaller pretrained model")
    assert not any("hidden_size" in way or "vocab_size" in way for way in ways)
    assert ways[1] == (
        "a smaller vocabulary: tokenizer.trim=8192 saves up to 56% of an epoch, but unseen questions are answered worse"
    )


def test_a_model_without_a_feed_forward_width_of_its_own_names_none():
    ways = ways_out(replace(SIZES, feed_forward=None, vocabulary=50_257, chosen_vocabulary=False), 0.5)
    assert ways[0].startswith("a smaller model: model.hidden_size=96 saves up to ")
    assert ways[1] == "a smaller vocabulary: tokenizer.trim=8192 saves up to 56% of an epoch"


def test_a_vocabulary_that_costs_little_is_not_named():
    assert not any("vocabulary" in way for way in ways_out(replace(SIZES, head=20_000), 0.5))


BIG = DataSizes(
    lengths=np.full(30_000, 30, np.int32), longest=30, answer=5.0, row=64, vocab_size=16_384, paraphrases=1.0
)
"""900,000 tokens, for which the recipe chooses a width above the smallest one."""


def smaller(budget, **changes):
    given = open_config(stop_at_recall=0.99, trainer__max_epochs=None)
    for name, value in changes.items():
        given = replace(given, model=replace(given.model, **{name: value}))
    config = completed(given, BIG)
    found = smaller_model(config, given, BIG, times(budget, before=1), RECALL)
    return config.model, found and found.model


def test_a_smaller_model_is_chosen_only_if_recall_then_fits(capsys):
    now, model = smaller(130.0)  # eleven epochs of 10 s fit, twelve are needed
    assert model
    assert model.hidden_size < now.hidden_size
    assert model.extra["intermediate_size"] == pytest.approx(model.hidden_size * 8 / 3, abs=16)
    assert f"a model of width {model.hidden_size} with 1 layer takes about " in capsys.readouterr().out
    assert smaller(60.0)[1] is None  # far too short for any
    assert smaller(1000.0)[1] is None  # long enough for that of the recipe
    assert smaller(130.0, hidden_size=512)[1] is None  # given
