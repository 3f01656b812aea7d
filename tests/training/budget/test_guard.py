"""The guard of a time, with a clock that the tests set."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from qa_lm.training.budget.guard import BudgetGuard


class Hand:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def trained(seconds, epochs, guard=None, most=100):
    """The number of epochs that are trained when each takes this long, and the guard. 20 s passed, 10 s follow."""
    hand = Hand()
    guard = guard or BudgetGuard(seconds, hand)
    guard.clock = hand
    guard.after_seconds, hand.now = 10.0, 20.0
    fake = cast(Any, SimpleNamespace(current_epoch=0, max_epochs=most, should_stop=False, world_size=1))
    for number, took in enumerate(epochs):
        fake.current_epoch = number
        guard.on_train_epoch_start(fake, cast(Any, None))
        hand.now += took
        guard.on_train_epoch_end(fake, cast(Any, None))
        if fake.should_stop:
            return number + 1, guard
    return len(epochs), guard


def test_epochs_as_planned_are_all_trained():
    assert trained(130, [10.0] * 10)[0] == 10


def test_a_slower_machine_trains_the_epochs_that_fit():
    """20 s passed and 10 s follow: five epochs of 20 s fit 130 s, a sixth would end at 150 s, above the slack."""
    count, guard = trained(130, [20.0] * 10)
    assert count == 5
    assert guard.stopped


def test_a_little_late_is_not_stopped():
    count, guard = trained(130, [10.0] * 8 + [14.0, 10.0], most=10)
    assert (count, guard.stopped) == (10, False)
    assert trained(130, [10.5] * 10, most=10)[0] == 10


def test_a_single_slow_epoch_is_not_taken_for_the_next_ones():
    assert trained(190, [10.0] * 12 + [30.0, 10.0], most=14)[0] == 14


@pytest.mark.parametrize("slow", [15.0, 40.0, 100.0, 300.0])
def test_it_is_never_more_than_an_epoch_over(slow):
    for count in range(12):
        epochs = [10.0] * count + [slow] * 40
        trained_epochs, guard = trained(130, epochs)
        assert guard.used_seconds + guard.after_seconds - epochs[trained_epochs - 1] < 1.05 * 130 + 2


def test_the_last_epoch_is_no_stop():
    count, guard = trained(130, [40.0, 40.0], most=2)
    assert (count, guard.stopped) == (2, False)


def test_the_time_of_earlier_parts_counts():
    _, first = trained(130, [10.0] * 4)
    state = first.state_dict()
    assert state["used_seconds"] == 60
    resumed = BudgetGuard(130, Hand())
    resumed.load_state_dict(state)
    assert trained(130, [10.0] * 20, guard=resumed)[0] == 4  # 60 s, 20 s to start again, 40 s of epochs, 10 s after it


def test_the_first_process_decides_for_all():
    asked = []

    def broadcast(own: bool) -> bool:
        asked.append(own)
        return len(asked) == 2

    strategy = SimpleNamespace(broadcast=broadcast)
    hand = Hand()
    guard = BudgetGuard(1000, hand)
    fake = cast(Any, SimpleNamespace(current_epoch=0, max_epochs=9, should_stop=False, world_size=2, strategy=strategy))
    guard.on_train_epoch_end(fake, cast(Any, None))
    assert not fake.should_stop
    guard.on_train_epoch_end(fake, cast(Any, None))
    assert fake.should_stop
    assert asked == [False, False]
