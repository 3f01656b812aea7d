"""Tables of a sweep's report, for both pages and for the terminal."""

from collections import Counter
from collections.abc import Sequence

from qa_lm.reporting.sweep.findings import Findings, Group
from qa_lm.reporting.sweep.jobs import Job
from qa_lm.reporting.sweep.outcomes import Outcome
from qa_lm.reporting.sweep.statistics import Difference
from qa_lm.reporting.sweep.verdict import format_p, verdict_text
from qa_lm.reporting.tables import LETTERS, Cell, Table
from qa_lm.reporting.wording import ABSENT, excerpt, format_int, shorten


def settings_table(findings: Findings) -> Table:
    """A row per setting: its results and, if the settings are ranked, whether it differs from the best."""
    knobs = [knob.key for knob in findings.design.knobs] or ["setting"]
    objective, *others = findings.outcomes
    results, align = [objective.title], "r"
    if findings.ranked:
        results = [f"{objective.title}, mean", "95% interval", "difference to best", "p, corrected", "verdict"]
        align = "rrrrl"
    compared = {each.other: each.difference for each in findings.against_best}
    rows = [
        [
            *_place(group.place),
            _seeds(group),
            Cell(objective.shown(group.mean(objective))),
            *(_against(findings, group, compared.get(group.place)) if findings.ranked else []),
            *(Cell(outcome.shown(group.mean(outcome))) for outcome in others),
        ]
        for group in findings.groups
    ]
    header = [*knobs, "seeds", *results, *(outcome.title for outcome in others)]
    return Table("settings", header, "l" * len(knobs) + "r" + align + "r" * len(others), rows)


def knobs_table(findings: Findings) -> Table:
    """A row per comparison of two levels of a knob; empty with one knob."""
    outcome = findings.objective.outcome
    rows = []
    for knob, compared in zip(findings.design.knobs, findings.by_knob, strict=False):
        for each in compared:
            difference = each.difference
            kind = "pairs of runs" if difference.paired else "runs"
            rows.append(
                [
                    Cell(knob.key),
                    Cell(_level(str(each.best))),
                    Cell(_level(str(each.other))),
                    Cell(_signed(outcome, -difference.value), _gap_interval(outcome, difference)),
                    Cell(f"{kind}: {format_int(difference.runs)}" if difference.runs else ABSENT),
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


def _against(findings: Findings, group: Group, difference: Difference | None) -> list[Cell]:
    """Its interval, and its comparison with the best setting."""
    outcome, mean = findings.objective.outcome, group.estimate
    interval = Cell((outcome.interval(mean.low, mean.high) if mean else "") or ABSENT)
    if difference is None:
        best = len(findings.measured) > 1 and group is findings.measured[0]
        return [interval, Cell(ABSENT), Cell(ABSENT), Cell("best" if best else ABSENT)]
    return [
        interval,
        Cell(outcome.gap(difference.value)),
        Cell(format_p(difference.p_corrected)),
        _verdict(difference),
    ]


def _verdict(difference: Difference) -> Cell:
    mark = {True: "right", False: "nearly", None: ""}[difference.significant]
    return Cell(verdict_text(difference), mark=mark)


def _signed(outcome: Outcome, gap: float) -> str:
    sign = "+" if gap > 0 else "\N{MINUS SIGN}" if gap < 0 else ""
    return sign + outcome.gap(gap)


def _gap_interval(outcome: Outcome, difference: Difference) -> str:
    if difference.low is None or difference.high is None:
        return ""
    return f"{_signed(outcome, -difference.high)} to {_signed(outcome, -difference.low)}"


def _state(job: Job) -> Cell:
    mark = {"finished": "", "failed": "wrong"}.get(job.state, "nearly")
    small = excerpt(job.error, 160) if job.error else job.early_end
    return Cell({"left": "not started"}.get(job.state, job.state), small, mark)
