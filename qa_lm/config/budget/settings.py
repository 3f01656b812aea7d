"""`budget=10m`: the time and the memory that a run may take, with their units."""

import math
import re
from dataclasses import dataclass

from qa_lm.errors import UserError

SECONDS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0}
"""Seconds of each unit of time."""
BYTES = {"gib": 2.0**30, "mib": 2.0**20, "gb": 1e9, "mb": 1e6}
"""Bytes of each unit of memory, in lower case."""
PART = re.compile(r"(\d+(?:\.\d+)?)([dhms])")
SIZE = re.compile(r"(\d+(?:\.\d+)?) ?(gib|mib|gb|mb)", re.IGNORECASE)
NUMBER = re.compile(r"[-+]?\d*\.?\d+(e[-+]?\d+)?", re.IGNORECASE)
SHORT_FORM = re.compile(r"([+]{0,2})budget=(?!\{)(.+)", re.DOTALL)
HINT = "budget: write budget.time=10m for time and budget.memory=2GB for memory; only the command line knows budget=10m"


@dataclass
class BudgetConfig:
    """The time and the memory that a run may take. What the recipe leaves open is chosen so that they suffice."""

    time: str | None = None
    """Time of the whole run: 90s, 10m, 2h, 1d or 1h30m. Whole epochs are chosen before training. `budget=10m` is the
    same."""
    memory: str | None = None
    """Peak memory of the process, or of its GPU: 2GB, 2GiB, 500MB or 500MiB. The rows of a batch are chosen before
    training; gradients of several batches are added up, so that a step has as many rows as without a budget."""


def with_time(argument: str) -> str:
    """Return an argument of the command line with `budget=10m` written as `budget.time=10m`; others are unchanged."""
    found = SHORT_FORM.fullmatch(argument)
    return f"{found[1]}budget.time={found[2]}" if found else argument


def check_budget(budget: BudgetConfig) -> None:
    """Refuse what is not a duration or a size.

    Raises:
        UserError: the message names the units.
    """
    if budget.time is not None:
        seconds_of(budget.time)
    if budget.memory is not None:
        bytes_of(budget.memory)


def seconds_of(text: str) -> float:
    """Return the seconds of a duration such as 10m or 1h30m.

    Raises:
        UserError: it has no unit, an unknown one or the same twice, or it is 0.
    """
    key = "budget.time"
    if NUMBER.fullmatch(text):
        raise UserError(
            f"{key}={text}: add a unit: {text}s, {text}m, {text}h or {text}d (seconds, minutes, hours, days)", key
        )
    parts = PART.findall(text)
    units = {unit for _, unit in parts}
    if PART.sub("", text) or len(units) < len(parts):
        raise UserError(f"{key}={text}: not a duration; write it with the units s, m, h and d: 90s, 10m, 1h30m", key)
    seconds = math.fsum(float(number) * SECONDS[unit] for number, unit in parts)
    if seconds == 0:
        raise UserError(f"{key}={text}: must be above 0", key)
    return seconds


def bytes_of(text: str) -> float:
    """Return the bytes of a size such as 2GB.

    Raises:
        UserError: it has no unit or an unknown one, or it is 0.
    """
    key = "budget.memory"
    if NUMBER.fullmatch(text):
        raise UserError(f"{key}={text}: add a unit: {text}GB, {text}GiB, {text}MB or {text}MiB", key)
    found = SIZE.fullmatch(text)
    if found is None:
        raise UserError(f"{key}={text}: not a size; write it with GB, GiB, MB or MiB: 2GB, 500MB", key)
    if float(found[1]) == 0:
        raise UserError(f"{key}={text}: must be above 0", key)
    return float(found[1]) * BYTES[found[2].lower()]


def duration(seconds: float) -> str:
    """Format seconds with at most two units: 45s, 10m, 1h30m."""
    if seconds < 10 and round(seconds, 1) != round(seconds):
        return f"{seconds:.1f}s"
    left = round(seconds)
    if left > 3600:
        left = math.ceil(left / 60) * 60  # two units are enough, and what is needed must suffice
    shown = []
    for unit, size in SECONDS.items():
        count, left = divmod(left, int(size))
        if count:
            shown.append(f"{count}{unit}")
    return "".join(shown) or "0s"
