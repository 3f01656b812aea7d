"""Tables of a sweep's report, for both pages and for the terminal."""

from collections import Counter
from collections.abc import Sequence

from qa_lm.reporting.sweep.findings import Findings, Group
from qa_lm.reporting.sweep.jobs import Job
from qa_lm.reporting.sweep.statistics import Comparison, Difference
from qa_lm.reporting.sweep.verdict import format_p, verdict_text
from qa_lm.reporting.tables import LETTERS, Cell, Table
from qa_lm.reporting.wording import ABSENT, excerpt, format_int, shorten


def settings_table(findings: Findings) -> Table:
    """A row per setting: its results, and whether it differs from the best."""
    knobs = [knob.key for knob in findings.design.knobs] or ["setting"]
    objective, *others = findings.outcomes
    header = [
        *knobs,
        "seeds",
        f"{objective.title}, mean",
        "95% interval",
        "difference to best",
        "p, corrected",
        "verdict",
    ]
    compared = {each.other: each.difference for each in findings.against_best}
    if not findings.ranked:
        return _unranked(findings)
    rows = [
        [
            *_place(group.place),
            _seeds(group),
            Cell(objective.shown(group.estimate.mean) if group.estimate else ABSENT),
            Cell(_interval(findings, group)),
            *_against(findings, group, compared.get(group.place)),
            *(Cell(outcome.shown(group.mean(outcome))) for outcome in others),
        ]
        for group in findings.groups
    ]
    align = "l" * len(knobs) + "rrrrrl" + "r" * len(others)
    return Table("settings", [*header, *(outcome.title for outcome in others)], align, rows)


def _unranked(findings: Findings) -> Table:
    """A row per setting, without a comparison to the best."""
    knobs = [knob.key for knob in findings.design.knobs] or ["setting"]
    rows = [
        [*_place(group.place), _seeds(group), *(Cell(each.shown(group.mean(each))) for each in findings.outcomes)]
        for group in findings.groups
    ]
    header = [*knobs, "seeds", *(outcome.title for outcome in findings.outcomes)]
    return Table("settings", header, "l" * len(knobs) + "r" * (1 + len(findings.outcomes)), rows)


def knobs_table(findings: Findings) -> Table:
    """A row per comparison of two levels of a knob; empty with one knob."""
    outcome = findings.objective.outcome
    rows = []
    for knob, compared in zip(findings.design.knobs, findings.by_knob, strict=False):
        for each in compared:
            difference = each.difference
            rows.append(
                [
                    Cell(knob.key),
                    Cell(_level(str(each.best))),
                    Cell(_level(str(each.other))),
                    Cell(_signed(findings, difference), _gap_interval(findings, each)),
                    Cell(
                        ("pairs of runs: " if difference.paired else "runs: ") + format_int(difference.runs)
                        if difference.runs
                        else ABSENT
                    ),
                    Cell(format_p(difference.p_corrected)),
                    _verdict(difference),
                ]
            )
    header = ["knob", "best", "other", f"{outcome.title}, other minus best", "sample size", "p, corrected", "verdict"]
    return Table("comparisons", header, "lllrlrl", rows)


def jobs_table(findings: Findings) -> Table:
    """A row per job."""
    knobs = findings.design.knobs
    rows = []
    for job in findings.sweep.jobs:
        place = findings.design.places.get(job.name)
        levels = _place(place) if place is not None else [Cell(ABSENT)] * max(1, len(knobs))
        if not knobs:
            levels = []
        outcomes = [Cell(outcome.shown(job.metrics.get(outcome.name))) for outcome in findings.outcomes]
        rows.append(
            [Cell(job.name), *levels, Cell(findings.design.seeds.get(job.name, ABSENT)), _state(job), *outcomes]
        )
    header = ["job", *(knob.key for knob in knobs), "seed", "state", *(outcome.title for outcome in findings.outcomes)]
    return Table("jobs", header, "l" + "l" * len(knobs) + "rl" + "r" * len(findings.outcomes), rows)


def _place(place: Sequence[str]) -> list[Cell]:
    return [Cell(_level(level)) for level in place] or [Cell("the only setting")]


def _level(level: str) -> str:
    return shorten(level, LETTERS)


def _seeds(group: Group) -> Cell:
    seeds, jobs = len(group.values), len(group.jobs)
    early = Counter(each for job in group.jobs if (each := job.early_end))
    notes = [] if seeds == jobs else [f"{format_int(jobs)} jobs"]
    return Cell(format_int(seeds), ", ".join([*notes, *(f"{count} {words}" for words, count in early.items())]))


def _interval(findings: Findings, group: Group) -> str:
    if group.estimate is None:
        return ABSENT
    return findings.objective.outcome.interval(group.estimate.low, group.estimate.high) or ABSENT


def _against(findings: Findings, group: Group, difference: Difference | None) -> list[Cell]:
    if difference is None:
        best = len(findings.measured) > 1 and group is findings.measured[0]
        return [Cell(ABSENT), Cell(ABSENT), Cell("best" if best else ABSENT)]
    return [
        Cell(findings.objective.outcome.gap(difference.value)),
        Cell(format_p(difference.p_corrected)),
        _verdict(difference),
    ]


def _verdict(difference: Difference) -> Cell:
    mark = {True: "right", False: "nearly", None: ""}[difference.significant]
    return Cell(verdict_text(difference), mark=mark)


def _signed(findings: Findings, difference: Difference) -> str:
    """Format the other minus the best."""
    sign = "+" if difference.value < 0 else "\N{MINUS SIGN}" if difference.value > 0 else ""
    return sign + findings.objective.outcome.gap(difference.value)


def _gap_interval(findings: Findings, each: Comparison) -> str:
    low, high = each.difference.low, each.difference.high
    if low is None or high is None:
        return ""
    outcome = findings.objective.outcome
    ends = [("\N{MINUS SIGN}" if end < 0 else "+") + outcome.gap(end) for end in (-high, -low)]
    return f"{ends[0]} to {ends[1]}"


def _state(job: Job) -> Cell:
    mark = {"finished": "", "failed": "wrong"}.get(job.state, "nearly")
    small = excerpt(job.error, 160) if job.error else job.early_end
    return Cell({"left": "not started"}.get(job.state, job.state), small, mark)
