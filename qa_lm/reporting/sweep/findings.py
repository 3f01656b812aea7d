"""What a sweep came to: its settings from the best to the worst, and which differences are outside seed noise."""

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

FEWEST_SEEDS = 3
"""Seeds of each setting below which no difference gets a verdict: a spread of two values says next to nothing."""


@dataclass(frozen=True)
class Group:
    """The jobs of one setting, which differ by their seeds alone."""

    place: Place
    jobs: list[Job]
    values: dict[str, float]
    """The objective by seed; runs of one seed count as one, by their mean."""
    estimate: Estimate | None
    """None without any value."""

    def mean(self, outcome: Outcome) -> float | None:
        """The mean of any outcome over the jobs that have it."""
        found = [value for job in self.jobs if (value := finite(job.metrics.get(outcome.name))) is not None]
        return statistics.fmean(found) if found else None


@dataclass(frozen=True)
class Findings:
    """A sweep, looked through."""

    sweep: SweepFiles
    design: Design
    objective: Objective
    outcomes: list[Outcome]
    """The columns of the tables; the objective comes first."""
    groups: list[Group]
    """The best first; those without a value last."""
    against_best: list[Comparison]
    """The best against each other setting that has a value, in the order of the groups."""
    by_knob: list[list[Comparison]]
    """By knob, its best level against each other one; empty with one knob, where `against_best` says the same."""
    share: float
    """What each of the two sets of comparisons has of the 5% of false alarms."""

    @property
    def measured(self) -> list[Group]:
        """The groups that have a value."""
        return [group for group in self.groups if group.estimate]

    @property
    def pairs(self) -> int:
        """Comparisons of two settings that the correction counts."""
        return math.comb(len(self.measured), 2)

    def settled(self, compared: Comparison) -> bool:
        """Whether the better one is better by more than seed noise."""
        value = compared.difference.value
        ahead = value < 0 if self.objective.outcome.smaller_is_better else value > 0
        return bool(compared.difference.outside) and ahead

    @property
    def nothing_learnt(self) -> bool:
        """Whether no job answers any trained question."""
        found = [recall for job in self.sweep.jobs if (recall := finite(job.metrics.get("recall"))) is not None]
        return bool(found) and not any(found)

    @property
    def ranked(self) -> bool:
        """Whether there is a best setting to name: also where nothing was learnt, if a metric was asked for."""
        return not self.nothing_learnt or self.objective.asked

    @property
    def unequal(self) -> list[Job]:
        """Jobs that stopped early, where others trained for another number of epochs."""
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


def find(sweep: SweepFiles, metric: str | None = None, mode: str | None = None) -> Findings:
    """Group and compare the jobs of a sweep.

    Args:
        sweep: what was read.
        metric: a name of metrics.json to compare by; None for the one that the runs followed.
        mode: "min" or "max"; None for what the metric's name says.

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
    """Without the corrected p-value, and so without a verdict, where a setting has too few seeds."""

    def seeds(side: str | Place) -> int:
        """The fewest of a setting, or of all settings where a level of a knob is compared."""
        return len(values[side]) if isinstance(side, tuple) else min(map(len, values.values()))

    return [
        each
        if min(seeds(each.best), seeds(each.other)) >= FEWEST_SEEDS
        else replace(each, difference=replace(each.difference, corrected=None))
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
        values = {seed: statistics.fmean(found) for seed, found in by_seed.items()}
        groups.append(Group(place, here, values, estimate(list(values.values())) if values else None))
    return groups
