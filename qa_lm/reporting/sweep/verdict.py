"""The conclusion of a sweep in a few sentences: what ran, what is best, and what is significant."""

from collections import Counter

from qa_lm.reporting.sweep.findings import MIN_SEEDS, Findings, Group
from qa_lm.reporting.sweep.jobs import Job
from qa_lm.reporting.sweep.knobs import SEED, TOGETHER
from qa_lm.reporting.sweep.statistics import Difference
from qa_lm.reporting.wording import ABSENT, duration, list_names, percent, pluralize, size
from qa_lm.run.reader import finite


def conclusion(findings: Findings) -> list[str]:
    """Return the sentences."""
    sentences = [_ran(findings.sweep.jobs)]
    if not findings.measured:
        return sentences
    if findings.nothing_learnt:
        sentences.append(_nothing_learnt(findings))
    if findings.ranked:
        sentences.append(_best(findings))
        if len(findings.measured) > 1:
            sentences += [*(_knob(findings, knob) for knob in range(len(findings.by_knob))), _lead(findings)]
    sentences.append(_budgets(findings))
    return [sentence for sentence in sentences if sentence]


def estimated(findings: Findings, group: Group) -> str:
    """Format a group's mean with its interval and number of seeds."""
    mean, outcome = group.estimate, findings.objective.outcome
    if mean is None:
        return ABSENT
    interval = outcome.interval(mean.low, mean.high)
    return f"{outcome.shown(mean.mean)} ({f'95% interval {interval}, ' if interval else ''}{pluralize(mean.n, 'seed')})"


def verdict_text(difference: Difference) -> str:
    """Whether a difference is significant, for a table. A difference that is not may become so with more seeds."""
    if difference.significant is None:
        return f"not tested: fewer than {MIN_SEEDS} seeds"
    return "significant" if difference.significant else "not significant"


def format_p(p: float | None) -> str:
    """Format a p-value."""
    return ABSENT if p is None else "<0.001" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def determined_text(findings: Findings) -> list[str]:
    """Sentences on settings that differ but are not knobs."""
    design = findings.design
    names = {SEED: "the seed", TOGETHER: "the swept settings together"}
    sentences = [f"Determined by {names.get(key, key)}: {', '.join(each)}." for key, each in design.determined.items()]
    if design.unexplained:
        sentences.append(
            f"Other settings that differ, and may confound the comparison: {', '.join(design.unexplained)}."
        )
    return sentences


def spent(jobs: list[Job]) -> str:
    """Total time and tokens of all jobs; empty if neither is known."""
    seconds = [job.seconds for job in jobs if job.seconds is not None]
    measured = [[finite(job.metrics.get(key)) for key in ("tokens_per_second", "train_seconds")] for job in jobs]
    tokens = [speed * time for speed, time in measured if speed is not None and time is not None]
    parts = [f"{duration(sum(seconds))} of compute"] if seconds else []
    parts += [f"{size(sum(tokens))} training tokens"] if tokens else []
    return ", ".join(parts)


def _ran(jobs: list[Job]) -> str:
    if not jobs:
        return "The sweep has no jobs."
    states = Counter(job.state for job in jobs)
    if set(states) == {"finished"}:
        states_text = f"{pluralize(len(jobs), 'job')}, {'all finished' if len(jobs) > 1 else 'finished'}"
    else:
        order = ["finished", *sorted(set(states) - {"finished"})]
        words = {"left": "not started", "running": "still running"}
        counts = [f"{states[state]} {words.get(state, state)}" for state in order]
        states_text = f"{pluralize(len(jobs), 'job')}: {', '.join(counts)}"
    return "; ".join(part for part in (states_text, spent(jobs)) if part) + "."


def _nothing_learnt(findings: Findings) -> str:
    jobs = [job for job in findings.sweep.jobs if finite(job.metrics.get("recall")) is not None]
    where = f"all {len(jobs)} jobs" if len(jobs) > 1 else "the only job"
    return (
        f"Nothing was learnt: recall is {percent(0.0)} in {where}. Until a job answers some of its trained questions, "
        "recall cannot rank the settings."
    )


def _budgets(findings: Findings) -> str:
    """Which jobs stopped early; empty if all trained equally long."""
    early = findings.unequal
    if not early:
        return ""
    places = Counter(place for job in early if (place := findings.design.places.get(job.name)))
    which = list_names(
        [f"{findings.design.describe(place)} ({pluralize(count, 'job')})" for place, count in places.items()]
    )
    return (
        f"Training budgets are unequal: {len(early)} of {pluralize(len(findings.sweep.jobs), 'job')} stopped early"
        f"{f': {which}' if which else ''}. With early_stopping.patience=null, all train for the same number of epochs."
    )


def _best(findings: Findings) -> str:
    best = findings.measured[0]
    title = findings.objective.outcome.title
    if len(findings.measured) == 1:
        return f"{title.capitalize()} of {findings.design.describe(best.place)}: {estimated(findings, best)}."
    return f"Best by {title}: {findings.design.describe(best.place)}, with {estimated(findings, best)}."


def _lead(findings: Findings) -> str:
    compared = findings.against_best
    outcome, describe = findings.objective.outcome, findings.design.describe
    better = [each for each in compared if findings.is_better(each)]
    if not findings.repeated:
        gap = outcome.gap(compared[0].difference.value)
        return (
            f"No difference can be tested: each setting has one seed. The lead of {gap} over "
            f"{describe(tuple(compared[0].other))} may be chance."
        )
    if all(each.difference.significant is None for each in compared):
        return f"No difference was tested: a test needs {MIN_SEEDS} seeds of each setting."
    if len(better) == len(compared):
        others = f"all {len(compared)} other settings" if len(compared) > 1 else describe(tuple(compared[0].other))
        return f"The best setting is significantly better than {others}."
    others = list_names([f"({describe(tuple(each.other))})" for each in compared if not findings.is_better(each)])
    if not better:
        return f"The best setting is not significantly better than {others}."
    return (
        f"The best setting is significantly better than {len(better)} of the {len(compared)} others, but not than "
        f"{others}."
    )


def _knob(findings: Findings, knob: int) -> str:
    """A sentence on the average effect of a knob; empty if it was not tested."""
    compared = findings.by_knob[knob]
    tested = [each for each in compared if each.difference.significant is not None]
    if not tested:
        return ""
    key, best = findings.design.knobs[knob].key, tested[0].best
    better = [each for each in tested if findings.is_better(each)]
    start = f"{key}, averaged over the other settings:"
    if not better:
        return f"{start} the best value, {best}, is not significantly better than any other."
    worse = list_names([f"{each.other} by {findings.objective.outcome.gap(each.difference.value)}" for each in better])
    rest = [str(each.other) for each in tested if not findings.is_better(each)]
    return f"{start} {best} is significantly better than {worse}" + (
        f", but not than {list_names(rest)}." if rest else "."
    )
