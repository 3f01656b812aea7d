"""The findings of a sweep: its settings from best to worst, and which differences are significant."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from qa_lm.reporting.sweep.jobs import Job, SweepFiles
from qa_lm.reporting.sweep.knobs import Design, design
from qa_lm.reporting.sweep.outcomes import Objective, Outcome, measured_outcomes, objective_of
from qa_lm.reporting.sweep.statistics import (
    Comparison,
    Estimate,
    Place,
    Seeds,
    against_best,
    between_levels,
    estimate,
    ranking,
)
from qa_lm.run.reader import finite

MIN_SEEDS = 3
"""Minimum number of seeds per setting for a test: the standard deviation of two values says next to nothing."""


@dataclass(frozen=True)
class Group:
    """The jobs of one setting, which differ only in their seeds."""

    place: Place
    jobs: list[Job]
    values: dict[str, float]
    """The objective by seed. Several runs with the same seed count as one, with their mean."""
    estimate: Estimate | None
    """None if no job has a value."""

    def mean(self, outcome: Outcome) -> float | None:
        """The mean of an outcome over the jobs that have it; None if none has."""
        values = [value for job in self.jobs if (value := finite(job.metrics.get(outcome.name))) is not None]
        return statistics.fmean(values) if values else None


@dataclass(frozen=True)
class Findings:
    """The analysis of a sweep."""

    sweep: SweepFiles
    design: Design
    objective: Objective
    outcomes: list[Outcome]
    """Columns of the tables. The objective comes first."""
    groups: list[Group]
    """Settings from best to worst; those without a value last."""
    against_best: list[Comparison]
    """The best setting against each other setting with a value, in the order of `groups`."""
    by_knob: list[list[Comparison]]
    """For each knob, its best level against each other level. Empty with one knob: `against_best` has the same."""
    share: float
    """Fraction of the 5% significance level that each of the two sets of comparisons gets."""

    @property
    def measured(self) -> list[Group]:
        """The groups that have a value."""
        return [group for group in self.groups if group.estimate]

    @property
    def pairs(self) -> int:
        """Number of pairs of settings, for which the correction accounts."""
        return math.comb(len(self.measured), 2)

    def is_better(self, compared: Comparison) -> bool:
        """Whether the first of the two is significantly better."""
        value = compared.difference.value
        ahead = value < 0 if self.objective.outcome.smaller_is_better else value > 0
        return bool(compared.difference.significant) and ahead

    @property
    def nothing_learnt(self) -> bool:
        """Whether no job answers any trained question: recall was measured and is always 0."""
        recalls = [recall for job in self.sweep.jobs if (recall := finite(job.metrics.get("recall"))) is not None]
        return bool(recalls) and not any(recalls)

    @property
    def ranked(self) -> bool:
        """Whether to name a best setting: if something was learnt, or the user chose the metric."""
        return not self.nothing_learnt or self.objective.chosen

    @property
    def unequal(self) -> list[Job]:
        """Jobs that stopped early, if not all jobs trained for the same number of epochs."""
        epochs = {job.metrics.get("epochs_run") for job in self.sweep.jobs if job.metrics}
        return (
            [job for job in self.sweep.jobs if job.early_end in ("stopped early", "diverged")]
            if len(epochs) > 1
            else []
        )

    @property
    def repeated(self) -> bool:
        """Whether any setting has more than one seed."""
        return any(len(group.values) > 1 for group in self.groups)


def compare_jobs(sweep: SweepFiles, metric: str | None = None, mode: str | None = None) -> Findings:
    """Group and compare the jobs of a sweep.

    Args:
        sweep: the sweep's files.
        metric: a name of metrics.json to compare by; None for the one that the runs monitored.
        mode: "min" or "max"; None to infer it from the metric's name.

    Raises:
        UserError: no job has this metric.
    """
    objective = objective_of(sweep.jobs, metric, mode)
    smaller = objective.outcome.smaller_is_better
    layout = design(sweep)
    groups = _groups(sweep.jobs, layout, objective.outcome)
    values = {group.place: group.values for group in groups if group.values}
    order = {place: rank for rank, place in enumerate(ranking(values, smaller))}
    share = 0.5 if len(layout.knobs) > 1 else 1.0
    levels = [
        [level for level in knob.levels if any(place[i] == level for place in values)]
        for i, knob in enumerate(layout.knobs)
    ]
    return Findings(
        sweep=sweep,
        design=layout,
        objective=objective,
        outcomes=measured_outcomes(sweep.jobs, objective.outcome),
        groups=sorted(groups, key=lambda group: order.get(group.place, len(order))),
        against_best=_with_verdicts(against_best(values, smaller, share), values),
        by_knob=[_with_verdicts(each, values) for each in between_levels(values, levels, smaller, share)]
        if len(layout.knobs) > 1
        else [],
        share=share,
    )


def _with_verdicts(compared: Sequence[Comparison], values: Mapping[Place, Seeds]) -> list[Comparison]:
    """Remove the corrected p-value, and so the verdict, where a setting has too few seeds."""

    def seeds(side: str | Place) -> int:
        """Number of seeds of a setting; for a level of a knob, the minimum over all settings."""
        return len(values[side]) if isinstance(side, tuple) else min(map(len, values.values()))

    return [
        each
        if min(seeds(each.best), seeds(each.other)) >= MIN_SEEDS
        else replace(each, difference=replace(each.difference, p_corrected=None))
        for each in compared
    ]


def _groups(jobs: list[Job], layout: Design, objective: Outcome) -> list[Group]:
    members: dict[Place, list[Job]] = {}
    for job in jobs:
        if job.name in layout.places:
            members.setdefault(layout.places[job.name], []).append(job)
    groups = []
    for place, here in members.items():
        by_seed: dict[str, list[float]] = {}
        for job in here:
            if (value := finite(job.metrics.get(objective.name))) is not None:
                by_seed.setdefault(layout.seeds[job.name], []).append(value)
        values = {seed: statistics.fmean(repeated) for seed, repeated in by_seed.items()}
        groups.append(Group(place, here, values, estimate(list(values.values())) if values else None))
    return groups
