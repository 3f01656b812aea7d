"""A budget is written with units, in one place of the settings, and is no part of what a run is."""

import pytest

from qa_lm.config.budget.settings import bytes_of, duration, seconds_of
from qa_lm.config.overrides import checked_copy, compose
from qa_lm.errors import UserError
from tests.conftest import small_config


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("10m", 600), ("1.5h", 5400), ("1h30m", 5400), ("2d", 172_800), ("1m30s", 90)]
)
def test_durations(text, seconds):
    assert seconds_of(text) == seconds


@pytest.mark.parametrize(
    ("text", "size"), [("2GB", 2e9), ("2GiB", 2 * 2**30), ("500MB", 5e8), ("500 mib", 500 * 2**20), ("1.5GB", 1.5e9)]
)
def test_sizes(text, size):
    assert bytes_of(text) == size


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.44, "0.4s"), (45, "45s"), (60, "1m"), (5400, "1h30m"), (5429, "1h31m"), (3599.7, "1h"), (90_000, "1d1h")],
)
def test_durations_are_shown_as_they_are_written(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("budget=10", "budget.time=10: add a unit: 10s, 10m, 10h or 10d (seconds, minutes, hours, days)"),
        ("budget=1.5", "budget.time=1.5: add a unit: 1.5s, "),
        ("budget=10min", "budget.time=10min: not a duration; write it with the units s, m, h and d"),
        ("budget=1m1m", "budget.time=1m1m: not a duration"),
        ("budget=0s", "budget.time=0s: must be above 0"),
        ("budget.memory=2", "budget.memory=2: add a unit: 2GB, 2GiB, 2MB or 2MiB"),
        ("budget.memory=2TB", "budget.memory=2TB: not a size; write it with GB, GiB, MB or MiB"),
        ("budget.memory=0MB", "budget.memory=0MB: must be above 0"),
        ("budget.tim=3m", "budget.tim: no such setting; did you mean budget.time?"),
        ("budget=5m,10m", "budget.time=5m,10m: several values"),
    ],
)
def test_a_mistake_gives_a_line_that_names_the_units(override, message):
    with pytest.raises(UserError) as error:
        compose(override)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("override", ["budget=10m", "++budget=10m", "budget.time=10m", "budget={time: 10m}"])
def test_the_short_form_is_the_time(override):
    assert compose(override).budget.time == "10m"


def test_the_short_form_can_turn_a_time_off():
    assert compose("budget=10m", "budget=null").budget.time is None


def test_the_short_form_elsewhere_gets_a_line(tmp_path):
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text("# @package _global_\nbudget: 10m\n")
    with pytest.raises(UserError, match=r"mine\.yaml: budget: write budget\.time=10m for time"):
        compose("experiment=mine", config_dir=tmp_path)
    with pytest.raises(UserError, match=r"budget: write budget\.time=10m for time"):
        checked_copy(small_config(budget="10m"))
