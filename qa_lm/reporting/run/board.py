"""board.json as the report shows it: what each row means, its numbers, and what is beside them."""

from dataclasses import dataclass
from typing import Any

from qa_lm import names
from qa_lm.reporting.wording import ABSENT, clipped, finite, percent, whole

SPLITS = {
    "train": "Trained",
    "validation": "Held out for validation",
    "test": "Held out for the test",
    "given": "The pairs that were asked",
}
WHOLE = tuple(names.WHOLE_SPLITS.values())
"""Names of the rows of whole splits; the other rows are parts of them."""
MEANINGS = {
    "trained pairs": "asked again exactly as they were trained: recall",
    "all held-out pairs": "every pair that was kept out of training",
    "all test pairs": "every pair that was kept for the test",
    "all pairs": "every pair that was asked",
    names.TRAINED: "also asked in training, perhaps with another answer",
    names.NEAR: "held out, but worded almost like a trained question",
    names.KNOWN_ANSWER: "no similar question was trained, but its answer was",
    names.NEW: "neither a similar question nor its answer was trained: only a rule, or luck, gives it",
    names.UNSEEN_PHRASING: "the fact was trained in other words",
    names.UNSEEN_FACT: "not trained in any wording: its answer is a guess",
}
METHODS = {"platt": "logistic regression", "isotonic": "isotonic regression"}
"""How probabilities are calibrated, as scikit-learn calls it."""
WORST_SHOWN = 20
CURVE_SHOWN = 8


@dataclass(frozen=True)
class Share:
    """A share with its 95% interval; None where it was not measured."""

    value: float | None
    low: float | None
    high: float | None

    @property
    def text(self) -> str:
        """The share alone."""
        return percent(self.value)

    @property
    def interval(self) -> str:
        """The interval alone, from low to high; empty if there is none."""
        if self.value is None or self.low is None or self.high is None:
            return ""
        return f"{100 * self.low:.1f}\N{EN DASH}{100 * self.high:.1f}%"

    @property
    def both(self) -> str:
        """The share with its interval in brackets."""
        return f"{self.text} ({self.interval})" if self.interval else self.text

    @property
    def known(self) -> bool:
        """Whether it can be drawn."""
        return bool(self.interval)


@dataclass(frozen=True)
class BoardRow:
    """A kind of pairs and how they are answered."""

    split: str
    name: str
    meaning: str
    n: float | None
    exact: Share
    normalised: Share
    f1: Share
    nearest: Share
    common: Share


def share(measured: object) -> Share:
    """A share as board.json has it: an object with value, low and high, or null."""
    found = measured if isinstance(measured, dict) else {}
    return Share(*(finite(found.get(name)) for name in ("value", "low", "high")))


def board_rows(board: dict[str, Any]) -> list[BoardRow]:
    """The rows in the file's order."""
    rows = []
    for row in board.get("rows") or []:
        name, baselines = row.get("name") or "", row.get("baselines") or {}
        rows.append(
            BoardRow(
                split=row.get("split") or "",
                name=name,
                meaning=MEANINGS.get(name, ""),
                n=finite(row.get("n")),
                exact=share(row.get("exact_match")),
                normalised=share(row.get("normalised_exact_match")),
                f1=share(row.get("f1")),
                nearest=share(baselines.get("nearest_question")),
                common=share(baselines.get("most_common_answer")),
            )
        )
    return rows


def by_split(rows: list[BoardRow]) -> list[tuple[str, list[BoardRow]]]:
    """The rows under the titles of their splits, trained ones first."""
    known = [*SPLITS, *sorted({row.split for row in rows} - set(SPLITS))]
    groups = [(SPLITS.get(split, split), [row for row in rows if row.split == split]) for split in known]
    return [(title, group) for title, group in groups if group]


def stopping_rows(board: dict[str, Any]) -> list[dict[str, Any]]:
    """How answers end, by split; every key is there."""
    keys = ("n", "stop_rate", "cut_early", "run_on", "eos_probability")
    return [
        {
            "split": row.get("split") or "",
            "title": SPLITS.get(row.get("split"), row.get("split") or ""),
            **{key: finite(row.get(key)) for key in keys},
        }
        for row in board.get("stopping") or []
    ]


def ending_words(found: dict[str, Any]) -> str:
    """One entry of `stopping` as a sentence."""
    split = names.SPLIT_WORDS.get(found["split"], found["split"])
    ended = f"{round(found['stop_rate'] * found['n']):,} of {found['n']:,} answers end on their own"
    sentence = f"Endings ({split}): {ended}; {found['cut_early']:,} too early, {found['run_on']:,} too late."
    if found["eos_probability"] is None:
        return sentence
    return f"{sentence} The model gives {found['eos_probability']:.1%} to ending where the right answer ends."


def confidence_words(board: dict[str, Any]) -> dict[str, Any]:
    """How sure answers are: by which method, fitted on what, how good; and why there may be no curve."""
    confidence = board.get("confidence")
    if not confidence:
        return {}
    fitted_on, method = confidence.get("fitted_on"), confidence.get("method")
    counts = {
        split: int(number)
        for split, count in (fitted_on if isinstance(fitted_on, dict) else {}).items()
        if (number := finite(count)) is not None
    }
    return {
        "method": METHODS.get(method, method or "an unknown method"),
        "source": names.pairs_by_split(counts) if counts else "an unknown number of pairs",
        "brier": finite(confidence.get("brier")),
        "too_few": _too_few(confidence),
    }


def _too_few(confidence: dict[str, Any]) -> str:
    pairs, right, needed = _held_out(confidence)
    if right is None or needed is None or right >= needed:
        return ""
    return (
        f"Only {whole(right)} of {whole(pairs)} answers to held-out questions are right. At least {whole(needed)} are "
        "needed to say how often its confident answers are right, so --precision is refused."
    )


def _held_out(confidence: dict[str, Any]) -> tuple[float | None, float | None, float | None]:
    counts = confidence.get("held_out") or {}
    return finite(counts.get("pairs")), finite(counts.get("right")), finite(counts.get("needed"))


def coverage_points(board: dict[str, Any]) -> list[dict[str, float]]:
    """Threshold, coverage and precision, by coverage; points that lack one of them are left out, and all where too few
    held-out answers are right."""
    keys = ("threshold", "coverage", "precision")
    confidence = board.get("confidence") or {}
    if _too_few(confidence):
        return []
    curve = confidence.get("curve") or []
    points = [{key: number for key in keys if (number := finite(point.get(key))) is not None} for point in curve]
    return sorted((point for point in points if len(point) == len(keys)), key=lambda point: point["coverage"])


def thinned(rows: list[Any], limit: int) -> list[Any]:
    """At most `limit` of the rows, evenly spaced, the first and the last among them."""
    if len(rows) <= limit:
        return rows
    return [rows[round(place * (len(rows) - 1) / (limit - 1))] for place in range(limit)]


def worst_pairs(ledger: dict[str, Any]) -> list[dict[str, Any]]:
    """The pairs that there is a reason to check; every key is there."""
    return [
        {
            **{key: clipped(str(pair.get(key) or "")) for key in ("place", "question", "answer", "why")},
            "learnt_at": ABSENT if (epoch := finite(pair.get("learnt_at"))) is None else f"{epoch:.0f}",
            "forgotten": finite(pair.get("forgotten")),
            "last_loss": finite(pair.get("last_loss")),
        }
        for pair in (ledger.get("worst") or [])[:WORST_SHOWN]
        if pair.get("why")
    ]
