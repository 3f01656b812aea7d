"""The outcomes of jobs that the report shows, and the choice of the one to compare by."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

from qa_lm.errors import UserError
from qa_lm.reporting.sweep.jobs import Job
from qa_lm.reporting.wording import ABSENT, decimal, duration, format_int, percent
from qa_lm.run.reader import finite


@dataclass(frozen=True)
class Outcome:
    """A metric of metrics.json."""

    name: str
    title: str
    smaller_is_better: bool
    kind: str
    """How to format it: share, loss, seconds, count or number."""

    def shown(self, value: object) -> str:
        """Format a value."""
        number = finite(value)
        if number is None:
            return ABSENT
        return FORMATS[self.kind](number)

    def gap(self, value: object) -> str:
        """Format the absolute difference of two values; of shares, in percentage points."""
        number = finite(value)
        if number is None:
            return ABSENT
        if self.kind == "share":
            return f"{100 * abs(number):.1f} points"
        return self.shown(abs(number))

    def interval(self, low: float | None, high: float | None) -> str:
        """Format an interval; empty if there is none."""
        if low is None or high is None:
            return ""
        if self.kind == "share":  # a mean of shares is within 0 and 1, even if its t interval is not
            low, high = max(0.0, low), min(1.0, high)
        if self.kind in ("seconds", "count"):
            low = max(0.0, low)
        return f"{self.shown(low)} to {self.shown(high)}"


FORMATS: dict[str, Callable[[float], str]] = {
    "share": percent,
    "loss": decimal,
    "seconds": duration,
    "count": lambda value: format_int(value) if value.is_integer() or value >= 100 else f"{value:.1f}",
    "number": lambda value: f"{value:.4g}",
}
OUTCOMES = {
    outcome.name: outcome
    for outcome in (
        Outcome("recall", "recall", False, "share"),
        Outcome("best_val_loss", "validation loss", True, "loss"),
        Outcome("val_exact_match", "held-out exact match", False, "share"),
        Outcome("epochs_run", "epochs", True, "count"),
        Outcome("fit_seconds", "training time", True, "seconds"),
        Outcome("tokens_per_second", "tokens per second", False, "count"),
        Outcome("final_train_loss", "final train loss", True, "loss"),
        Outcome("final_val_loss", "final validation loss", True, "loss"),
        Outcome("final_val_bits_per_answer_byte", "bits per answer byte", True, "loss"),
        Outcome("final_train_recall", "final recall", False, "share"),
        Outcome("test_exact_match", "test exact match", False, "share"),
        Outcome("seconds", "total time", True, "seconds"),
        Outcome("train_seconds", "time in training steps", True, "seconds"),
    )
}
SHOWN = ("recall", "best_val_loss", "val_exact_match", "epochs_run", "fit_seconds", "tokens_per_second")
OWN_MONITOR = "objective"
"""Metric of a monitor that is not one of qa_lm's."""
METRIC_OF_MONITOR = {
    "val/loss": "best_val_loss",
    "train/loss": "final_train_loss",
    "train/recall": "recall",
    "val/exact_match": "val_exact_match",
    "val/bits_per_answer_byte": "final_val_bits_per_answer_byte",
}
CURVES = {
    "val_loss": Outcome("val_loss", "Validation loss, nats per token", True, "loss"),
    "train_loss": Outcome("train_loss", "Train loss, nats per token", True, "loss"),
    "val_exact_match": Outcome("val_exact_match", "Exact match, held-out pairs", False, "share"),
    "train_recall": Outcome("train_recall", "Exact match, trained pairs (recall)", False, "share"),
}
"""Columns of metrics.csv."""


@dataclass(frozen=True)
class Objective:
    """The metric by which jobs are compared."""

    outcome: Outcome
    why: str
    """Why it was chosen, as the end of a sentence."""
    chosen: bool = False
    """Whether the user chose it."""


def objective_of(jobs: list[Job], metric: str | None = None, mode: str | None = None) -> Objective:
    """The metric that the user chose, or by default the one that the runs monitored.

    If every finished job reached the recall at which it was to stop, the default is training time.

    Args:
        jobs: the jobs of the sweep.
        metric: a name of metrics.json; None for the default.
        mode: "min" or "max"; None to infer it from the metric's name.

    Raises:
        UserError: no job has this metric.
    """
    if metric is not None:
        measured = sorted({name for job in jobs for name, value in job.metrics.items() if finite(value) is not None})
        if measured and metric not in measured:
            raise UserError(f"--metric {metric}: no job has this metric; available: {', '.join(measured)}")
    name, why = (metric, "chosen by --metric") if metric else _monitored(jobs)
    outcome = _own_monitor(jobs) if name == OWN_MONITOR and not metric else outcome_named(name)
    if mode is not None:
        outcome = replace(outcome, smaller_is_better=mode == "min")
    return Objective(outcome, why, chosen=bool(metric))


def _own_monitor(jobs: list[Job]) -> Outcome:
    """The best value of a `monitor` that a callback, loss or model of the user logs."""
    settings = next(job.settings for job in jobs if job.metrics and job.settings.get("monitor"))
    name = str(settings["monitor"])
    return Outcome(OWN_MONITOR, f"best {name}", settings.get("monitor_mode") == "min", "number")


def outcome_named(name: str) -> Outcome:
    """The outcome with this name. For unknown names, smaller is better if the name suggests a cost."""
    costs = ("loss", "seconds", "epoch", "memory", "bits", "steps")
    return OUTCOMES.get(name) or Outcome(name, name, any(cost in name for cost in costs), "number")


def measured_outcomes(jobs: list[Job], objective: Outcome) -> list[Outcome]:
    """Columns of the tables: the objective first, then those of `SHOWN` that were measured."""
    others = [OUTCOMES[name] for name in SHOWN if name != objective.name]
    return [
        objective,
        *(each for each in others if any(finite(job.metrics.get(each.name)) is not None for job in jobs)),
    ]


def _monitored(jobs: list[Job]) -> tuple[str, str]:
    finished = [job for job in jobs if job.metrics]
    monitors = Counter(str(job.settings["monitor"]) for job in finished if job.settings.get("monitor"))
    monitor = monitors.most_common(1)[0][0] if monitors else "val/loss"
    chosen = METRIC_OF_MONITOR.get(monitor, OWN_MONITOR)
    note = f"; jobs use {len(monitors)} different monitors" if len(monitors) > 1 else ""
    timed = [job for job in finished if job.recall_reached and finite(job.metrics.get("fit_seconds")) is not None]
    if chosen == "recall" and finished and len(timed) == len(finished):
        return "fit_seconds", f"every job reached its target recall, so they are compared by time{note}"
    if not finished or any(finite(job.metrics.get(chosen)) is not None for job in finished):
        return chosen, f"it corresponds to monitor={monitor}{note}"
    for name in ("best_val_loss", "recall", "final_train_loss"):
        if any(finite(job.metrics.get(name)) is not None for job in finished):
            return name, f"the metric of monitor={monitor} was not measured"
    return chosen, f"it corresponds to monitor={monitor}"
