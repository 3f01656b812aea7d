"""The conclusion of a sweep in a few sentences: what ran, what is best, and what is settled."""

from collections import Counter

from qa_lm.reporting.sweep.findings import FEWEST_SEEDS, Findings, Group
from qa_lm.reporting.sweep.jobs import Job
from qa_lm.reporting.sweep.knobs import SEED, TOGETHER
from qa_lm.reporting.sweep.statistics import Comparison, Difference
from qa_lm.reporting.wording import ABSENT, counted, duration, listed, percent, size
from qa_lm.run.reader import finite


def conclusion(findings: Findings) -> list[str]:
    """The sentences."""
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


def trained_tokens(job: Job) -> float | None:
    """Tokens that a job was trained on; None where that was not measured."""
    speed, seconds = (finite(job.metrics.get(key)) for key in ("tokens_per_second", "train_seconds"))
    return None if speed is None or seconds is None else speed * seconds


def estimated(findings: Findings, group: Group) -> str:
    """A group's mean with its interval and number of seeds."""
    found, outcome = group.estimate, findings.objective.outcome
    if found is None:
        return ABSENT
    interval = outcome.interval(found.low, found.high)
    return f"{outcome.shown(found.mean)} ({f'95% interval {interval}, ' if interval else ''}{counted(found.n, 'seed')})"


def verdict_words(found: Difference) -> str:
    """Whether it is outside seed noise, as a cell says it: what is not may still be, with more seeds."""
    if found.outside is None:
        return f"no verdict: fewer than {FEWEST_SEEDS} seeds"
    return "outside seed noise" if found.outside else "not settled"


def p_words(p: float | None) -> str:
    """A p-value."""
    return ABSENT if p is None else "<0.001" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def follower_words(findings: Findings) -> list[str]:
    """Which settings followed which, a sentence each."""
    design = findings.design
    names = {SEED: "the seed", TOGETHER: "the swept settings together"}
    said = [f"Given by {names.get(key, key)}: {', '.join(each)}." for key, each in design.followers.items()]
    if design.unexplained:
        said.append(f"Differ for another reason, and may blur the comparison: {', '.join(design.unexplained)}.")
    return said


def spent(jobs: list[Job]) -> str:
    """Time and tokens of all jobs; empty where neither is known."""
    seconds = [job.seconds for job in jobs if job.seconds is not None]
    tokens = [found for job in jobs if (found := trained_tokens(job)) is not None]
    parts = [f"{duration(sum(seconds))} of compute"] if seconds else []
    parts += [f"{size(sum(tokens))} tokens trained on"] if tokens else []
    return ", ".join(parts)


def _ran(jobs: list[Job]) -> str:
    if not jobs:
        return "The sweep has no jobs."
    states = Counter(job.state for job in jobs)
    if set(states) == {"finished"}:
        words = f"{counted(len(jobs), 'job')}, {'all finished' if len(jobs) > 1 else 'finished'}"
    else:
        order = ["finished", *sorted(set(states) - {"finished"})]
        words = f"{counted(len(jobs), 'job')}: " + ", ".join(f"{states[state]} {_state(state)}" for state in order)
    return "; ".join(part for part in (words, spent(jobs)) if part) + "."


def _state(state: str) -> str:
    return {"left": "not started", "running": "still running"}.get(state, state)


def _nothing_learnt(findings: Findings) -> str:
    jobs = [job for job in findings.sweep.jobs if finite(job.metrics.get("recall")) is not None]
    where = f"all {len(jobs)} jobs" if len(jobs) > 1 else "the only job"
    return (
        f"Nothing was learnt: recall is {percent(0.0)} in {where}. Until a job answers some of its trained questions, "
        "recall cannot say which setting is better."
    )


def _budgets(findings: Findings) -> str:
    """Which jobs stopped early; empty where all trained as long."""
    early = findings.unequal
    if not early:
        return ""
    places = Counter(place for job in early if (place := findings.design.places.get(job.name)))
    which = listed([f"{findings.design.words(place)} ({counted(count, 'job')})" for place, count in places.items()])
    return (
        f"Training budgets are unequal: {len(early)} of {counted(len(findings.sweep.jobs), 'job')} stopped early"
        f"{f': {which}' if which else ''}. early_stopping.patience=null trains all for the same number of epochs."
    )


def _best(findings: Findings) -> str:
    best = findings.measured[0]
    title = findings.objective.outcome.title
    if len(findings.measured) == 1:
        return f"{title.capitalize()} of {findings.design.words(best.place)}: {estimated(findings, best)}."
    return f"Best by {title}: {findings.design.words(best.place)}, with {estimated(findings, best)}."


def _lead(findings: Findings) -> str:
    compared = findings.against_best
    outcome, words = findings.objective.outcome, findings.design.words
    settled = [each for each in compared if findings.settled(each)]
    if not findings.repeated:
        gap = outcome.gap(compared[0].difference.value)
        return (
            f"Nothing is settled: each setting has one seed, so whether its lead of {gap} over "
            f"{words(tuple(compared[0].other))} is more than chance cannot be told."
        )
    if all(each.difference.outside is None for each in compared):
        return f"Nothing is settled: a verdict takes {FEWEST_SEEDS} seeds of each setting."
    if len(settled) == len(compared):
        others = f"each of the {len(compared)} other settings" if len(compared) > 1 else words(tuple(compared[0].other))
        return f"The best is better than {others} by more than seed noise."
    alike = listed([f"({words(tuple(each.other))})" for each in compared if not findings.settled(each)])
    if not settled:
        return f"That it is the best is not settled: it is not distinguishable from {alike}."
    return (
        f"The best is better than {len(settled)} of the {len(compared)} other settings by more than seed noise, and "
        f"not distinguishable from {alike}."
    )


def _knob(findings: Findings, knob: int) -> str:
    """What a knob does on average over the others; nothing where no seeds are repeated."""
    compared = findings.by_knob[knob]
    tested = [each for each in compared if each.difference.outside is not None]
    if not tested:
        return ""
    key, best = findings.design.knobs[knob].key, tested[0].best
    settled = [each for each in tested if findings.settled(each)]
    start = f"{key}: on average over the other settings,"
    if not settled:
        return f"{start} no value is distinguishable from the best, {best}."
    said = listed([f"{each.other} by {_gap(findings, each)}" for each in settled])
    rest = [str(each.other) for each in tested if not findings.settled(each)]
    return f"{start} {best} is better than {said}, outside seed noise" + (
        f"; not distinguishable from {listed(rest)}." if rest else "."
    )


def _gap(findings: Findings, each: Comparison) -> str:
    return findings.objective.outcome.gap(each.difference.value)
