"""What differs between the jobs of a sweep: the knobs that were turned, and the settings that only followed them.

- Where each job's overrides are known, the knobs are the overrides that differ.
- Else they are the settings that differ, narrowed to those that the command of the sweep names, where that is known.
  A setting whose value is given by another one's follows it; of two that give each other, the first in config.yaml
  leads.
- `seed` is no knob: jobs that differ by it alone are repetitions.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from qa_lm.reporting.sweep.jobs import Job, SweepFiles, label, plain
from qa_lm.run.reader import finite

SEED = "seed"
TOGETHER = "the knobs together"
UNSET = "(default)"
"""The level of a job that leaves a group's choice, which config.yaml does not name, to the defaults."""


@dataclass(frozen=True)
class Knob:
    """A setting that was swept."""

    key: str
    """Dotted, or a group such as "model"."""
    name: str
    """Its last part, if no other knob ends so; else the key."""
    levels: list[str]
    """Its values as text: numbers by size, others as they first came."""
    numbers: list[float] | None
    """The levels as numbers, if all are."""


@dataclass(frozen=True)
class Design:
    """How a sweep was laid out."""

    knobs: list[Knob]
    places: dict[str, tuple[str, ...]]
    """The level of each knob, by the job's name; jobs of which one is not known are left out."""
    seeds: dict[str, str]
    """The seed, by the job's name."""
    followers: dict[str, list[str]]
    """By knob, or `SEED`, or `TOGETHER`: settings whose value it gives."""
    unexplained: list[str]
    """Settings that differ though no knob gives their value."""
    by_overrides: bool
    """Whether the knobs are known from what was given, and not only from what came of it."""

    def words(self, place: tuple[str, ...]) -> str:
        """A place as "kind=muon, lr=0.003"."""
        if not self.knobs:
            return "the only setting"
        return ", ".join(f"{knob.name}={level}" for knob, level in zip(self.knobs, place, strict=True))


Columns = Mapping[str, Mapping[str, str]]
"""Levels by key and then by the job's name."""


def design(sweep: SweepFiles) -> Design:
    """Find the knobs."""
    known = [job for job in sweep.jobs if job.settings or job.overrides]
    settings = _differing([job for job in known if job.settings])
    by_overrides = bool(known) and all(job.overrides is not None for job in known)
    seeds = {job.name: _seed(job) for job in known}
    if by_overrides:
        knobs = _overridden(known)
    else:
        candidates = _named(settings, sweep.arguments)
        candidates = [key for key in candidates if not _follows_seed(settings[key], seeds)]
        knobs = {key: settings[key] for key in _leaders({key: settings[key] for key in candidates})}
    followers, unexplained = _explained(
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
        followers=followers,
        unexplained=unexplained,
        by_overrides=by_overrides,
    )


def override(text: str) -> tuple[str, str]:
    """Key and value of an override such as "+optimizer.lr=3e-3"."""
    key, _, value = text.partition("=")
    return key.lstrip("+~").partition("@")[0], value


def is_own(key: str) -> bool:
    """Whether it is a setting of the run, and neither Hydra's own nor the seed."""
    return key != SEED and not key.startswith(("hydra.", "hydra/"))


def is_swept(value: str) -> bool:
    """Whether an override's value is several: a comma outside brackets and quotes, or one of Hydra's functions."""
    bare = re.sub(r"\[[^\]]*\]|\{[^}]*\}|'[^']*'|\"[^\"]*\"", "", value)
    return "," in bare or bare.startswith(("range(", "choice(", "interval(", "glob(", "shuffle("))


def _seed(job: Job) -> str:
    given = [value for key, value in map(override, job.overrides or []) if key == SEED]
    return label(job.settings.get(SEED, job.metrics.get(SEED, given[-1] if given else None)))


def _differing(jobs: list[Job]) -> dict[str, dict[str, str]]:
    """Settings that have more than one value."""
    keys = dict.fromkeys(key for job in jobs for key in job.settings if is_own(key))
    columns = {key: {job.name: label(job.settings.get(key)) for job in jobs} for key in keys}
    return {key: levels for key, levels in columns.items() if len(set(levels.values())) > 1}


def _overridden(jobs: list[Job]) -> dict[str, dict[str, str]]:
    """Overrides that have more than one value; what config.yaml holds counts before what was written."""
    given = {job.name: dict(map(override, job.overrides or [])) for job in jobs}
    keys = dict.fromkeys(key for values in given.values() for key in values if is_own(key))
    columns: dict[str, dict[str, str]] = {
        key: {
            job.name: label(job.settings[key] if key in job.settings else given[job.name].get(key, UNSET))
            for job in jobs
        }
        for key in keys
    }
    return {key: levels for key, levels in columns.items() if len(set(levels.values())) > 1}


def _named(settings: Columns, arguments: list[str]) -> list[str]:
    """The differing settings that the sweep's command sweeps, itself or by their group; all, if it names none."""
    given = [override(each) for each in arguments]
    named = [key for key, value in given if is_own(key) and is_swept(value)]
    found = [key for key in settings if any(key == each or key.startswith(f"{each}.") for each in named)]
    return list(settings) if not found or "experiment" in named else found


def _gives(leader: Mapping[str, str], follower: Mapping[str, str]) -> bool:
    """Whether the follower has one value for each of the leader's."""
    seen: dict[str, str] = {}
    return all(seen.setdefault(leader[job], level) == level for job, level in follower.items() if job in leader)


def _leaders(columns: Columns) -> list[str]:
    """Those that no other one gives; of a circle, the first."""
    kept: list[str] = []
    for place, key in enumerate(columns):
        others = [
            other
            for before, other in enumerate(columns)
            if other != key
            and _gives(columns[other], columns[key])
            and (before < place or not _gives(columns[key], columns[other]))
        ]
        if not others:
            kept.append(key)
    return kept


def _follows_seed(levels: Mapping[str, str], seeds: Mapping[str, str]) -> bool:
    """Whether the seed gives it. Where no seed comes twice, only a copy of the seed is known to follow it."""
    here = [seeds[job] for job in levels]
    if len(set(here)) == len(here):
        return all(level == seeds[job] for job, level in levels.items())
    return len(set(here)) > 1 and _gives(seeds, levels)


def _explained(rest: Columns, knobs: Columns, seeds: Mapping[str, str]) -> tuple[dict[str, list[str]], list[str]]:
    together = {job: label([levels.get(job) for levels in knobs.values()]) for job in seeds}
    followers: dict[str, list[str]] = {}
    unexplained = []
    for key, levels in rest.items():
        leaders = [knob for knob, column in knobs.items() if _gives(column, levels)]
        if leaders:
            followers.setdefault(leaders[0], []).append(key)
        elif _follows_seed(levels, seeds):
            followers.setdefault(SEED, []).append(key)
        elif _gives(together, levels):
            followers.setdefault(TOGETHER, []).append(key)
        else:
            unexplained.append(key)
    return followers, unexplained


def _knob(key: str, levels: Mapping[str, str], endings: list[str]) -> Knob:
    ending = key.rpartition(".")[2]
    found = list(dict.fromkeys(levels.values()))
    numbers = [None if isinstance(plain(level), bool) else finite(plain(level)) for level in found]
    sizes = [number for number in numbers if number is not None]
    if len(sizes) == len(found):
        found = [level for _, level in sorted(zip(sizes, found, strict=True))]
        return Knob(key, ending if endings.count(ending) == 1 else key, found, sorted(sizes))
    return Knob(key, ending if endings.count(ending) == 1 else key, found, None)
