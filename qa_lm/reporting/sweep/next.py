"""What to run next: more seeds where nothing is settled, a wider range where the best stands at an edge."""

import itertools
import json
import math
import re
import shlex
import statistics
from dataclasses import dataclass

from qa_lm.reporting.sweep.findings import FEWEST_SEEDS, Findings, Group
from qa_lm.reporting.sweep.knobs import UNSET, is_own, is_swept, override
from qa_lm.reporting.sweep.statistics import MOST_SEEDS, POWER, Comparison, seeds_needed
from qa_lm.reporting.wording import counted, duration, whole
from qa_lm.run.reader import finite

LONGER = 5
"""How many times as long the run is that is proposed where nothing was learnt."""
MOST_REPEATED = 6
"""Settings of a whole sweep that are all worth repeating; of more, the best `BEST_REPEATED` are."""
BEST_REPEATED = 3
WORTH_IT = 30
"""Seeds of each setting beyond which telling them apart is not proposed as the next thing to do."""


@dataclass(frozen=True)
class Step:
    """Something to do."""

    words: str
    commands: list[str]


def next_steps(findings: Findings) -> list[Step]:
    """What would settle what is not settled, the most useful first."""
    measured = findings.measured
    if not measured:
        return [Step(_nothing(findings), [])]
    if not findings.ranked:
        return [_learn_something(findings)]
    if not findings.design.knobs or len(measured) < 2:
        return [_one_setting(findings)]
    seeds = _more_seeds(findings) if findings.repeated else _first_seeds(findings)
    edges = (_edge(findings, knob) for knob in range(len(findings.design.knobs)))
    steps = [step for step in (seeds, *edges) if step]
    if not steps:
        return [Step("Nothing more: the best setting is better than each other one by more than seed noise.", [])]
    if steps[0].commands and not findings.design.by_overrides and not findings.sweep.arguments:
        words = "The command names the swept settings alone: give the others as this sweep did."
        steps[0] = Step(f"{steps[0].words} {words}", steps[0].commands)
    return steps


def commands(findings: Findings, places: list[tuple[str, ...]], seeds: str) -> list[str]:
    """What runs these settings with these seeds: one line if they are all combinations of their levels."""
    knobs = findings.design.knobs
    levels = [list(dict.fromkeys(column)) for column in zip(*places, strict=True)]
    whole_grid = len(list(itertools.product(*levels))) == len(places) and UNSET not in itertools.chain(*places)
    lines = [levels] if whole_grid else [[[level] for level in place] for place in places]
    start = [*findings.sweep.program, "-m", *_base(findings)]
    written = []
    for line in lines:
        given = [
            f"{knob.key}={','.join(map(_hydra, chosen))}"
            for knob, chosen in zip(knobs, line, strict=True)
            if chosen != [UNSET]
        ]
        written.append(shlex.join([*start, *given, f"seed={seeds}"]))
    return written


def new_seeds(findings: Findings, count: int) -> str:
    """Seeds that no job has had, as Hydra takes them."""
    used = set(findings.design.seeds.values())
    free = [str(seed) for seed in range(1, count + len(used) + 1) if str(seed) not in used][:count]
    numbers = [int(seed) for seed in free]
    if count > 5 and numbers == list(range(numbers[0], numbers[0] + count)):
        return f"range({numbers[0]},{numbers[-1] + 1})"
    return ",".join(free)


def _nothing(findings: Findings) -> str:
    jobs, title = findings.sweep.jobs, findings.objective.outcome.title
    if not jobs:
        return "No job has begun."
    if any(job.metrics for job in jobs):
        return f"No job has a value of {title}: compare by another metric (--metric)."
    return "No job has finished: see what the first one says in its job.log."


def _one_setting(findings: Findings) -> Step:
    group = findings.measured[0]
    if (
        findings.design.knobs
        or len(findings.sweep.jobs) > len(group.jobs)
        or not all(job.metrics for job in group.jobs)
    ):
        return Step(
            "Only one setting has a result, so there is nothing to compare: run the other jobs to their ends.", []
        )
    if len(group.values) > 1:
        return Step(
            "Every job has the same settings, so there is nothing to compare: sweep one, such as optimizer.lr.", []
        )
    words = "One job is no comparison. With three seeds it shows what chance alone does; sweep a setting beside them."
    return Step(words, commands(findings, [group.place], new_seeds(findings, FEWEST_SEEDS)))


def _first_seeds(findings: Findings) -> Step:
    measured = findings.measured
    few = measured if len(measured) <= MOST_REPEATED else measured[:BEST_REPEATED]
    what = "each setting" if few is measured else f"each of the best {BEST_REPEATED} settings"
    words = (
        f"Each setting has one seed, so no difference can be told from chance. {FEWEST_SEEDS} more seeds of {what} "
        f"show how much chance does, and how many it takes to settle the rest{_cost(few, FEWEST_SEEDS)}."
    )
    return Step(words, commands(findings, [group.place for group in few], new_seeds(findings, FEWEST_SEEDS)))


def _more_seeds(findings: Findings) -> Step | None:
    """None where the best is settled."""
    open_ones = [each for each in findings.against_best if not findings.settled(each)]
    if not open_ones:
        return None
    first = open_ones[0]
    groups = [group for group in findings.measured if group.place in (first.best, first.other)]
    have = min(len(group.values) for group in groups)
    if have < FEWEST_SEEDS:
        return _to_a_verdict(findings)
    gap, needed = findings.objective.outcome.gap(first.difference.value), seeds_needed(first.difference)
    if needed is None or needed > WORTH_IT:
        return Step(_alike(first, gap, needed), [])
    needed = max(FEWEST_SEEDS, needed)
    words = (
        f"The best and the next differ by {gap}. If that and the spread seen so far are true, {whole(needed)} new "
        f"seeds of these two alone settle it with a chance of {POWER:.0%}: a sweep of its own, in which no other "
        "comparison asks for a correction"
        f"{_cost(groups, needed)}."
    )
    return Step(words, commands(findings, [group.place for group in groups], new_seeds(findings, needed)))


def _to_a_verdict(findings: Findings) -> Step:
    """The seeds that settings lack for a verdict; of many settings, those of the best."""
    measured = findings.measured
    few = measured if len(measured) <= MOST_REPEATED else measured[:BEST_REPEATED]
    few = [group for group in few if len(group.values) < FEWEST_SEEDS]
    count = FEWEST_SEEDS - min(len(group.values) for group in few)
    words = (
        f"A verdict takes {FEWEST_SEEDS} seeds of each setting: {counted(count, 'more seed')} for "
        f"{counted(len(few), 'setting')}{_cost(few, count)}."
    )
    return Step(words, commands(findings, [group.place for group in few], new_seeds(findings, count)))


def _learn_something(findings: Findings) -> Step:
    """A single run that is likely to learn: the recipe for that, or where the sweep followed it, a longer run."""
    base = _base(findings)
    start = findings.sweep.program
    if not any(override(each) == ("experiment", "recall") for each in base):
        data = [each for each in base if override(each)[0].startswith("data")]
        builtin = findings.measured[0].jobs[0].settings.get("data.builtin")
        data = data or ([f"data={builtin}"] if builtin else [])
        words = "First find settings that learn something, with the recipe for that:"
        return Step(words, [shlex.join([*start, "experiment=recall", *data])])
    epochs = max(finite(job.metrics.get("epochs_run")) or 1 for job in findings.sweep.jobs)
    base = [each for each in base if override(each)[0] != "trainer.max_epochs"]
    words = f"First find settings that learn something, with a run {LONGER} times as long:"
    best = min(findings.measured, key=_train_loss)
    knobs = [
        f"{knob.key}={_hydra(level)}"
        for knob, level in zip(findings.design.knobs, best.place, strict=True)
        if level != UNSET and knob.key != "trainer.max_epochs"
    ]
    return Step(words, [shlex.join([*start, *base, *knobs, f"trainer.max_epochs={LONGER * epochs:.0f}"])])


def _train_loss(group: Group) -> float:
    """Mean train loss at the end; infinite where it is not known."""
    found = [finite(job.metrics.get("final_train_loss")) for job in group.jobs]
    return statistics.fmean(math.inf if each is None else each for each in found)


def _alike(first: Comparison, gap: str, needed: int | None) -> str:
    if needed is not None:
        price = f"about {whole(needed)} new seeds of each would tell them apart"
    elif first.difference.spread and first.difference.value:
        price = f"more than {MOST_SEEDS} new seeds of each would be needed to tell them apart"
    else:
        price = "there is no variation between their seeds"
    return f"The best and the next differ by {gap}; {price}. Choose between them by other things, such as time."


def _edge(findings: Findings, knob: int) -> Step | None:
    """A number whose best is the least or the greatest tried, and is not merely the best by chance."""
    numbers = findings.design.knobs[knob].numbers
    best = findings.measured[0].place[knob]
    levels = findings.design.knobs[knob].levels
    if numbers is None or len(numbers) < 2 or not _counts(findings, knob):
        return None
    place = levels.index(best)
    if place not in (0, len(levels) - 1):
        return None
    inner = numbers[1] if place == 0 else numbers[-2]
    beyond = _beyond(numbers[place], inner)
    if beyond is None:
        return None
    key, side = findings.design.knobs[knob].key, "smallest" if place == 0 else "largest"
    target = findings.measured[0].place
    moved = (*target[:knob], beyond, *target[knob + 1 :])
    words = f"The best {key} is the {side} that was tried: the optimum may lie beyond."
    used = list(dict.fromkeys(findings.measured[0].values))
    return Step(words, commands(findings, [moved], ",".join(used)))


def _counts(findings: Findings, knob: int) -> bool:
    """Whether this knob makes a difference outside seed noise."""
    found = findings.by_knob[knob] if findings.by_knob else findings.against_best
    return any(findings.settled(each) for each in found)


def _beyond(edge: float, inner: float) -> str | None:
    """The next number by the same ratio; None where not all are positive."""
    if edge > 0 and inner > 0:
        found = edge * edge / inner
        if edge.is_integer() and inner.is_integer():
            return str(round(found)) if round(found) not in (0, round(edge)) else None
        return f"{found:.2g}"
    return None


def _cost(groups: list[Group], seeds: int) -> str:
    seconds = [job.seconds for group in groups for job in group.jobs if job.seconds is not None]
    if not seconds:
        return ""
    jobs = seeds * len(groups)
    return f" ({counted(jobs, 'job')}, about {duration(jobs * statistics.fmean(seconds))} of compute)"


def _base(findings: Findings) -> list[str]:
    """The overrides that all jobs share."""
    swept = {knob.key for knob in findings.design.knobs}
    given = [job.overrides for job in findings.sweep.jobs if job.overrides is not None]
    if given:
        shared = [each for each in given[0] if all(each in others for others in given)]
    else:
        shared = [each for each in findings.sweep.arguments if not is_swept(override(each)[1])]
    return [each for each in shared if is_own(override(each)[0]) and override(each)[0] not in swept]


def _hydra(level: str) -> str:
    """A level as Hydra's grammar takes it: text with characters of the grammar in quotes."""
    try:
        json.loads(level)
        return level
    except ValueError:
        pass
    return "'" + level.replace("'", "\\'") + "'" if re.search(r"[=,(){}\[\]:'\"\\]", level) else level
