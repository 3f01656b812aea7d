"""Propose what to run next: more seeds if differences are not significant, a wider range if the best is at an edge."""

import itertools
import json
import math
import re
import shlex
import statistics
from dataclasses import dataclass

from qa_lm.names import BUILTIN_PAIRS
from qa_lm.reporting.sweep.findings import MIN_SEEDS, Findings, Group
from qa_lm.reporting.sweep.knobs import UNSET, is_own, is_swept, override
from qa_lm.reporting.sweep.statistics import MAX_SEEDS, POWER, Comparison, seeds_needed
from qa_lm.reporting.wording import duration, format_int, pluralize
from qa_lm.run.reader import finite

LONGER = 5
"""If nothing was learnt, a run this many times as long is proposed."""
MAX_REPEATED = 6
"""Up to this many settings are all repeated. With more, only the best `BEST_REPEATED` are."""
BEST_REPEATED = 3
MAX_PROPOSED_SEEDS = 30
"""If more seeds per setting are needed to distinguish two settings, they are not proposed."""


@dataclass(frozen=True)
class Step:
    """A proposal: text, and commands to run."""

    text: str
    commands: list[str]


def next_steps(findings: Findings) -> list[Step]:
    """Proposals, the most useful first."""
    measured = findings.measured
    if not measured:
        return [Step(_nothing(findings), [])]
    if not findings.ranked:
        return [_learn_something(findings)]
    if not findings.design.knobs or len(measured) < 2:
        return [_one_setting(findings)]
    edges = (_edge(findings, knob) for knob in range(len(findings.design.knobs)))
    steps = [step for step in (_more_seeds(findings), *edges) if step]
    if not steps:
        return [Step("Nothing: the best setting is significantly better than all others.", [])]
    if steps[0].commands and not findings.design.by_overrides and not findings.sweep.arguments:
        text = "The command has only the swept settings: add the others as in this sweep."
        steps[0] = Step(f"{steps[0].text} {text}", steps[0].commands)
    return steps


def commands(findings: Findings, places: list[tuple[str, ...]], seeds: str) -> list[str]:
    """Commands that run these settings with these seeds: a single one if they form a full grid."""
    knobs = findings.design.knobs
    levels = [list(dict.fromkeys(column)) for column in zip(*places, strict=True)]
    full_grid = len(list(itertools.product(*levels))) == len(places) and UNSET not in itertools.chain(*places)
    lines = [levels] if full_grid else [[[level] for level in place] for place in places]
    start = [*findings.sweep.program, "-m", *_base(findings)]
    written = []
    for line in lines:
        given = [
            f"{knob.key}={','.join(map(_quoted, chosen))}"
            for knob, chosen in zip(knobs, line, strict=True)
            if chosen != [UNSET]
        ]
        written.append(shlex.join([*start, *given, f"seed={seeds}"]))
    return written


def new_seeds(findings: Findings, count: int) -> str:
    """Unused seeds, in Hydra's syntax."""
    used = set(findings.design.seeds.values())
    free = [str(seed) for seed in range(1, count + len(used) + 1) if str(seed) not in used][:count]
    numbers = [int(seed) for seed in free]
    if count > 5 and numbers == list(range(numbers[0], numbers[0] + count)):
        return f"range({numbers[0]},{numbers[-1] + 1})"
    return ",".join(free)


def _nothing(findings: Findings) -> str:
    jobs, title = findings.sweep.jobs, findings.objective.outcome.title
    if not jobs:
        return "No job has started."
    if any(job.metrics for job in jobs):
        return f"No job has a value of {title}: choose another metric (--metric)."
    return "No job has finished: see the job.log of the first one."


def _one_setting(findings: Findings) -> Step:
    group = findings.measured[0]
    if (
        findings.design.knobs
        or len(findings.sweep.jobs) > len(group.jobs)
        or not all(job.metrics for job in group.jobs)
    ):
        return Step("Only one setting has a result, so there is nothing to compare: finish the other jobs.", [])
    if len(group.values) > 1:
        return Step(
            "Every job has the same settings, so there is nothing to compare: sweep one, such as optimizer.lr.", []
        )
    text = "One job allows no comparison. Three seeds show the variation by chance; also sweep a setting."
    return Step(text, commands(findings, [group.place], new_seeds(findings, MIN_SEEDS)))


def _more_seeds(findings: Findings) -> Step | None:
    """More seeds for the two best settings; None if the best is significantly better than all others."""
    undecided = [each for each in findings.against_best if not findings.is_better(each)]
    if not undecided:
        return None
    first = undecided[0]
    groups = [group for group in findings.measured if group.place in (first.best, first.other)]
    if min(len(group.values) for group in groups) < MIN_SEEDS:
        return _seeds_for_a_test(findings)
    gap, needed = findings.objective.outcome.gap(first.difference.value), seeds_needed(first.difference)
    if needed is None or needed > MAX_PROPOSED_SEEDS:
        return Step(_hard_to_distinguish(first, gap, needed), [])
    needed = max(MIN_SEEDS, needed)
    text = (
        f"The best two settings differ by {gap}. If this difference and the standard deviation so far are accurate, a "
        f"separate sweep with {format_int(needed)} new seeds of only these two, which needs no correction for other "
        f"comparisons, finds the difference significant with a probability of {POWER:.0%}{_cost(groups, needed)}."
    )
    return Step(text, commands(findings, [group.place for group in groups], new_seeds(findings, needed)))


def _seeds_for_a_test(findings: Findings) -> Step:
    """The seeds that settings still need for a test; with many settings, only for the best."""
    measured = findings.measured
    few = measured if len(measured) <= MAX_REPEATED else measured[:BEST_REPEATED]
    few = [group for group in few if len(group.values) < MIN_SEEDS]
    count = MIN_SEEDS - min(len(group.values) for group in few)
    text = (
        f"A significance test needs {MIN_SEEDS} seeds of each setting: {pluralize(count, 'more seed')} for "
        f"{pluralize(len(few), 'setting')}{_cost(few, count)}."
    )
    return Step(text, commands(findings, [group.place for group in few], new_seeds(findings, count)))


def _learn_something(findings: Findings) -> Step:
    """A single run that is likely to learn: experiment=recall, or a longer run if the sweep used that."""
    base = _base(findings)
    start = findings.sweep.program
    if not any(override(each) == ("experiment", "recall") for each in base):
        data = [each for each in base if override(each)[0].startswith("data")]
        path = findings.measured[0].jobs[0].settings.get("data.path")
        data = data or ([f"data={path}"] if path in BUILTIN_PAIRS else [])
        text = "First find settings that learn something, starting from the recall recipe:"
        return Step(text, [shlex.join([*start, "experiment=recall", *data])])
    epochs = max(finite(job.metrics.get("epochs_run")) or 1 for job in findings.sweep.jobs)
    base = [each for each in base if override(each)[0] != "trainer.max_epochs"]
    text = f"First find settings that learn something, with a run {LONGER} times as long:"
    best = min(findings.measured, key=_train_loss)
    knobs = [
        f"{knob.key}={_quoted(level)}"
        for knob, level in zip(findings.design.knobs, best.place, strict=True)
        if level != UNSET and knob.key != "trainer.max_epochs"
    ]
    return Step(text, [shlex.join([*start, *base, *knobs, f"trainer.max_epochs={LONGER * epochs:.0f}"])])


def _train_loss(group: Group) -> float:
    """Mean final train loss; infinite if unknown."""
    losses = [finite(job.metrics.get("final_train_loss")) for job in group.jobs]
    return statistics.fmean(math.inf if loss is None else loss for loss in losses)


def _hard_to_distinguish(first: Comparison, gap: str, needed: int | None) -> str:
    if needed is not None:
        price = f"about {format_int(needed)} new seeds of each would be needed to distinguish them"
    elif first.difference.spread and first.difference.value:
        price = f"more than {MAX_SEEDS} new seeds of each would be needed to distinguish them"
    else:
        price = "their values do not vary between seeds"
    return f"The best two settings differ by {gap}; {price}. Choose between them by other criteria, such as time."


def _edge(findings: Findings, knob: int) -> Step | None:
    """A value beyond the tried range, if the best value is at its edge and the knob has a significant effect."""
    numbers, levels = findings.design.knobs[knob].numbers, findings.design.knobs[knob].levels
    compared = findings.by_knob[knob] if findings.by_knob else findings.against_best
    if numbers is None or len(numbers) < 2 or not any(findings.is_better(each) for each in compared):
        return None
    place = levels.index(findings.measured[0].place[knob])
    if place not in (0, len(levels) - 1):
        return None
    inner = numbers[1] if place == 0 else numbers[-2]
    beyond = _beyond(numbers[place], inner)
    if beyond is None:
        return None
    side = "smallest" if place == 0 else "largest"
    text = f"The best {findings.design.knobs[knob].key} is the {side} value tried: the optimum may lie beyond it."
    best = findings.measured[0]
    moved = (*best.place[:knob], beyond, *best.place[knob + 1 :])
    return Step(text, commands(findings, [moved], ",".join(best.values)))


def _beyond(edge: float, inner: float) -> str | None:
    """The next number with the same ratio; None unless both are positive."""
    if edge > 0 and inner > 0:
        value = edge * edge / inner
        if edge.is_integer() and inner.is_integer():
            return str(round(value)) if round(value) not in (0, round(edge)) else None
        return f"{value:.2g}"
    return None


def _cost(groups: list[Group], seeds: int) -> str:
    seconds = [job.seconds for group in groups for job in group.jobs if job.seconds is not None]
    if not seconds:
        return ""
    jobs = seeds * len(groups)
    return f" ({pluralize(jobs, 'job')}, about {duration(jobs * statistics.fmean(seconds))} of compute)"


def _base(findings: Findings) -> list[str]:
    """Overrides that all jobs share."""
    swept = {knob.key for knob in findings.design.knobs}
    given = [job.overrides for job in findings.sweep.jobs if job.overrides is not None]
    if given:
        shared = [each for each in given[0] if all(each in others for others in given)]
    else:
        shared = [each for each in findings.sweep.arguments if not is_swept(override(each)[1])]
    return [each for each in shared if is_own(override(each)[0]) and override(each)[0] not in swept]


def _quoted(level: str) -> str:
    """Format a level in Hydra's syntax: text with special characters is quoted, JSON is not."""
    try:
        json.loads(level)
    except ValueError:
        return "'" + level.replace("'", "\\'") + "'" if re.search(r"[=,(){}\[\]:'\"\\]", level) else level
    return level
