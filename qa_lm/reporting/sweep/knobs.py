"""Find what differs between the jobs of a sweep: the knobs (swept settings), and settings that the knobs determine.

- If each job's overrides are known, the knobs are the overrides that differ.
- Otherwise the knobs are the settings that differ, restricted to those that the sweep's command names, if it is known.
  A setting that is a function of another one over the jobs is not a knob. Of two that determine each other, the first
  in config.yaml is the knob.
- `seed` does not count as a knob: jobs that differ only in it are repetitions.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from qa_lm.reporting.sweep.jobs import Job, SweepFiles, label, plain
from qa_lm.run.reader import finite

SEED = "seed"
TOGETHER = "the knobs together"
UNSET = "(default)"
"""The level of a job that uses the default choice of a group, which config.yaml does not record."""


@dataclass(frozen=True)
class Knob:
    """A swept setting."""

    key: str
    """Dotted key, or a group such as "model"."""
    name: str
    """Last part of the key if it is unique among the knobs, else the key."""
    levels: list[str]
    """Values as text: numbers in ascending order, others in order of appearance."""
    numbers: list[float] | None
    """The levels as numbers; None unless all are numbers."""


@dataclass(frozen=True)
class Design:
    """The experimental design of a sweep."""

    knobs: list[Knob]
    places: dict[str, tuple[str, ...]]
    """Level of each knob by job name. Jobs with an unknown level are left out."""
    seeds: dict[str, str]
    """Seed by job name."""
    determined: dict[str, list[str]]
    """Settings that a knob determines, by knob, `SEED` or `TOGETHER`."""
    unexplained: list[str]
    """Settings that differ although no knob determines them."""
    by_overrides: bool
    """Whether the knobs are known from the jobs' overrides, not inferred from their settings."""

    def describe(self, place: tuple[str, ...]) -> str:
        """Format a setting as "kind=muon, lr=0.003"."""
        if not self.knobs:
            return "the only setting"
        return ", ".join(f"{knob.name}={level}" for knob, level in zip(self.knobs, place, strict=True))


Columns = Mapping[str, Mapping[str, str]]
"""Levels by key, then by job name."""


def design(sweep: SweepFiles) -> Design:
    """Find the knobs of a sweep."""
    known = [job for job in sweep.jobs if job.settings or job.overrides]
    configured = [job for job in known if job.settings]
    settings = _differing(configured, (key for job in configured for key in job.settings))
    by_overrides = bool(known) and all(job.overrides is not None for job in known)
    seeds = {job.name: _seed(job) for job in known}
    if by_overrides:
        knobs = _differing(known, (override(each)[0] for job in known for each in job.overrides or []))
    else:
        named = _named(settings, sweep.arguments)
        candidates = {key: settings[key] for key in named if not _seed_determines(settings[key], seeds)}
        knobs = {key: settings[key] for key in _independent(candidates)}
    determined, unexplained = _explained(
        {key: levels for key, levels in settings.items() if key not in knobs}, knobs, seeds
    )
    endings = [key.rpartition(".")[2] for key in knobs]
    return Design(
        knobs=[_knob(key, levels, endings) for key, levels in knobs.items()],
        places={
            job.name: tuple(levels[job.name] for levels in knobs.values())
            for job in known
            if all(job.name in levels for levels in knobs.values())
        },
        seeds=seeds,
        determined=determined,
        unexplained=unexplained,
        by_overrides=by_overrides,
    )


def override(text: str) -> tuple[str, str]:
    """Split an override such as "+optimizer.lr=3e-3" into key and value."""
    key, _, value = text.partition("=")
    return key.lstrip("+~").partition("@")[0], value


def is_own(key: str) -> bool:
    """Whether a key is a setting of the run, not one of Hydra's or the seed."""
    return key != SEED and not key.startswith(("hydra.", "hydra/"))


def is_swept(value: str) -> bool:
    """Whether an override sweeps: it has a comma outside brackets and quotes, or one of Hydra's sweep functions."""
    bare = re.sub(r"\[[^\]]*\]|\{[^}]*\}|'[^']*'|\"[^\"]*\"", "", value)
    return "," in bare or bare.startswith(("range(", "choice(", "interval(", "glob(", "shuffle("))


def _seed(job: Job) -> str:
    given = [value for key, value in map(override, job.overrides or []) if key == SEED]
    return label(job.settings.get(SEED, job.metrics.get(SEED, given[-1] if given else None)))


def _differing(jobs: list[Job], keys: Iterable[str]) -> dict[str, dict[str, str]]:
    """Those of the keys that have more than one value over the jobs: in config.yaml, else in the overrides."""
    given = {job.name: dict(map(override, job.overrides or [])) for job in jobs}
    columns = {
        key: {job.name: label(job.settings.get(key, given[job.name].get(key, UNSET))) for job in jobs}
        for key in dict.fromkeys(keys)
        if is_own(key)
    }
    return {key: levels for key, levels in columns.items() if len(set(levels.values())) > 1}


def _named(settings: Columns, arguments: list[str]) -> list[str]:
    """The differing settings that the sweep's command sweeps, directly or by their group; all if it names none."""
    given = [override(each) for each in arguments]
    named = [key for key, value in given if is_own(key) and is_swept(value)]
    selected = [key for key in settings if any(key == each or key.startswith(f"{each}.") for each in named)]
    return list(settings) if not selected or "experiment" in named else selected


def _determines(a: Mapping[str, str], b: Mapping[str, str]) -> bool:
    """Whether b is a function of a over these jobs."""
    seen: dict[str, str] = {}
    return all(seen.setdefault(a[job], level) == level for job, level in b.items() if job in a)


def _independent(columns: Columns) -> list[str]:
    """Keys that no other key determines. Of keys that determine each other, only the first is kept."""
    kept: list[str] = []
    for place, key in enumerate(columns):
        others = [
            other
            for before, other in enumerate(columns)
            if other != key
            and _determines(columns[other], columns[key])
            and (before < place or not _determines(columns[key], columns[other]))
        ]
        if not others:
            kept.append(key)
    return kept


def _seed_determines(levels: Mapping[str, str], seeds: Mapping[str, str]) -> bool:
    """Whether the seed determines a setting. If all seeds differ, only a setting equal to the seed counts."""
    here = [seeds[job] for job in levels]
    if len(set(here)) == len(here):
        return all(level == seeds[job] for job, level in levels.items())
    return len(set(here)) > 1 and _determines(seeds, levels)


def _explained(rest: Columns, knobs: Columns, seeds: Mapping[str, str]) -> tuple[dict[str, list[str]], list[str]]:
    together = {job: label([levels.get(job) for levels in knobs.values()]) for job in seeds}
    determined: dict[str, list[str]] = {}
    unexplained = []
    for key, levels in rest.items():
        by_knob = [knob for knob, column in knobs.items() if _determines(column, levels)]
        if by_knob:
            determined.setdefault(by_knob[0], []).append(key)
        elif _seed_determines(levels, seeds):
            determined.setdefault(SEED, []).append(key)
        elif _determines(together, levels):
            determined.setdefault(TOGETHER, []).append(key)
        else:
            unexplained.append(key)
    return determined, unexplained


def _knob(key: str, levels: Mapping[str, str], endings: list[str]) -> Knob:
    ending = key.rpartition(".")[2]
    name = ending if endings.count(ending) == 1 else key
    values = list(dict.fromkeys(levels.values()))
    numbers = [None if isinstance(plain(level), bool) else finite(plain(level)) for level in values]
    sizes = [number for number in numbers if number is not None]
    if len(sizes) < len(values):
        return Knob(key, name, values, None)
    return Knob(key, name, [level for _, level in sorted(zip(sizes, values, strict=True))], sorted(sizes))
