"""The outcomes of a job that the report shows, and which of them the sweep is about."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from qa_lm.errors import UserError
from qa_lm.reporting.sweep.jobs import Job
from qa_lm.reporting.wording import ABSENT, decimal, duration, percent, whole
from qa_lm.run.reader import finite


@dataclass(frozen=True)
class Outcome:
    """A number of metrics.json."""

    name: str
    title: str
    smaller_is_better: bool
    kind: str
    """How it is shown: share, loss, seconds, count or number."""

    def shown(self, value: object) -> str:
        """A value of it."""
        number = finite(value)
        if number is None:
            return ABSENT
        return WRITTEN[self.kind](number)

    def gap(self, value: object) -> str:
        """A difference of two values, without its sign; of shares in points of a hundred."""
        number = finite(value)
        if number is None:
            return ABSENT
        if self.kind == "share":
            return f"{100 * abs(number):.1f} points"
        return self.shown(abs(number))

    def interval(self, low: float | None, high: float | None) -> str:
        """An interval; empty if there is none."""
        if low is None or high is None:
            return ""
        if self.kind == "share":  # a mean of shares is one, whatever its interval says
            low, high = max(0.0, low), min(1.0, high)
        if self.kind in ("seconds", "count"):
            low = max(0.0, low)
        return f"{self.shown(low)} to {self.shown(high)}"


WRITTEN: dict[str, Callable[[float], str]] = {
    "share": percent,
    "loss": decimal,
    "seconds": duration,
    "count": lambda value: whole(value) if value.is_integer() or value >= 100 else f"{value:.1f}",
    "number": lambda value: f"{value:.4g}",
}
OUTCOMES = {
    outcome.name: outcome
    for outcome in (
        Outcome("recall", "recall", False, "share"),
        Outcome("best_val_loss", "validation loss", True, "loss"),
        Outcome("val_exact_match", "held out, exact", False, "share"),
        Outcome("epochs_run", "epochs", True, "count"),
        Outcome("fit_seconds", "training time", True, "seconds"),
        Outcome("tokens_per_second", "tokens a second", False, "count"),
        Outcome("final_train_loss", "train loss at the end", True, "loss"),
        Outcome("final_val_loss", "validation loss at the end", True, "loss"),
        Outcome("final_val_bits_per_answer_byte", "bits per answer byte", True, "loss"),
        Outcome("final_train_recall", "recall at the end", False, "share"),
        Outcome("test_exact_match", "test, exact", False, "share"),
        Outcome("seconds", "time in all", True, "seconds"),
        Outcome("train_seconds", "time of steps", True, "seconds"),
    )
}
SHOWN = ("recall", "best_val_loss", "val_exact_match", "epochs_run", "fit_seconds", "tokens_per_second")
OF_MONITOR = {
    "val/loss": "best_val_loss",
    "train/loss": "final_train_loss",
    "train/recall": "recall",
    "val/exact_match": "val_exact_match",
    "val/bits_per_answer_byte": "final_val_bits_per_answer_byte",
}
CURVES = {
    "val_loss": Outcome("val_loss", "Validation loss, nats per token", True, "loss"),
    "train_loss": Outcome("train_loss", "Train loss, nats per token", True, "loss"),
    "val_exact_match": Outcome("val_exact_match", "Held-out pairs answered exactly", False, "share"),
    "train_recall": Outcome("train_recall", "Trained pairs answered exactly (recall)", False, "share"),
}
"""Columns of metrics.csv."""


@dataclass(frozen=True)
class Objective:
    """What the jobs are compared by."""

    outcome: Outcome
    why: str
    """Why this one, as the end of a sentence."""
    asked: bool = False
    """Whether it was asked for."""


def objective_of(jobs: list[Job], metric: str | None = None, mode: str | None = None) -> Objective:
    """The outcome that was asked for, or else the one that the runs themselves followed.

    Where every finished job reached the recall at which it was to stop, they differ by the time that it took.

    Args:
        jobs: of the sweep.
        metric: a name of metrics.json; None to choose.
        mode: "min" or "max"; None for what the outcome's name says.

    Raises:
        UserError: no job has this metric.
    """
    if metric is not None:
        measured = sorted({name for job in jobs for name, value in job.metrics.items() if finite(value) is not None})
        if measured and metric not in measured:
            raise UserError(f"--metric {metric}: no job has it; they have {', '.join(measured)}")
        return Objective(_with_mode(outcome_named(metric), mode), "as asked", asked=True)
    chosen, why = _followed(jobs)
    return Objective(_with_mode(outcome_named(chosen), mode), why)


def outcome_named(name: str) -> Outcome:
    """The outcome of this name, known or not: then smaller is better if the name speaks of a cost."""
    costs = ("loss", "seconds", "epoch", "memory", "bits", "steps")
    return OUTCOMES.get(name) or Outcome(name, name, any(cost in name for cost in costs), "number")


def measured_outcomes(jobs: list[Job], objective: Outcome) -> list[Outcome]:
    """The columns of the tables: the objective first, then those of `SHOWN` that were measured."""
    others = [OUTCOMES[name] for name in SHOWN if name != objective.name]
    return [
        objective,
        *(each for each in others if any(finite(job.metrics.get(each.name)) is not None for job in jobs)),
    ]


def _followed(jobs: list[Job]) -> tuple[str, str]:
    finished = [job for job in jobs if job.metrics]
    monitors = Counter(str(job.settings["monitor"]) for job in finished if job.settings.get("monitor"))
    monitor = monitors.most_common(1)[0][0] if monitors else "val/loss"
    chosen = OF_MONITOR.get(monitor, "best_val_loss")
    many = f"; jobs follow {len(monitors)} different monitors" if len(monitors) > 1 else ""
    if chosen == "recall" and finished and all(map(_reached, finished)):
        return "fit_seconds", f"every job reached the recall at which it was to stop, so time decides{many}"
    if not finished or any(finite(job.metrics.get(chosen)) is not None for job in finished):
        return chosen, f"it belongs to monitor={monitor}{many}"
    for name in ("best_val_loss", "recall", "final_train_loss"):
        if any(finite(job.metrics.get(name)) is not None for job in finished):
            return name, f"what belongs to monitor={monitor} was not measured"
    return chosen, f"it belongs to monitor={monitor}"


def _reached(job: Job) -> bool:
    wanted, reached = (finite(job.settings.get("stop_at_recall")), finite(job.metrics.get("final_train_recall")))
    seconds = finite(job.metrics.get("fit_seconds"))
    return wanted is not None and reached is not None and reached >= wanted and seconds is not None


def _with_mode(outcome: Outcome, mode: str | None) -> Outcome:
    if mode is None:
        return outcome
    return Outcome(outcome.name, outcome.title, mode == "min", outcome.kind)
