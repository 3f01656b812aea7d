"""The contents of board.json as the report shows them: the rows with their meaning, endings and confidence."""

from dataclasses import dataclass
from typing import Any, TypeVar

from qa_lm import names
from qa_lm.reporting.wording import format_int, percent
from qa_lm.run.board_types import BeforeTraining, Board, Confidence, HeldOut, Stopping, Threshold
from qa_lm.run.reader import LedgerSummary, WorstPair

SPLITS = {
    "train": "Trained",
    "validation": "Held out for validation",
    "test": "Held out for testing",
    "given": "Given pairs",
}
WHOLE_SPLITS = tuple(names.WHOLE_SPLITS.values())
"""Names of the rows that cover a whole split. The other rows are parts of one."""
MEANINGS = {
    names.WHOLE_SPLITS["train"]: "asked again exactly as they were trained: recall",
    names.WHOLE_SPLITS["validation"]: "every pair that was kept out of training",
    names.WHOLE_SPLITS["test"]: "every pair that was kept for testing",
    names.WHOLE_SPLITS["given"]: "every pair that was asked",
    names.TRAINED: "also asked in training, perhaps with another answer",
    names.NEAR: "held out, but worded almost like a trained question",
    names.KNOWN_ANSWER: "no similar question was trained, but its answer was",
    names.NEW: "neither a similar question nor its answer was trained: only a general rule, or chance, gives it",
    names.UNSEEN_PHRASING: "the fact was trained with another wording",
    names.UNSEEN_FACT: "the fact was not trained with any wording: the answer is a guess",
}
METHODS = {"platt": "logistic regression", "isotonic": "isotonic regression"}
"""Calibration methods, with the names that scikit-learn uses."""
COPYING, COMMON_ANSWER = "copying the answer of the nearest training question", "always giving the most common answer"
UNTRAINED = "the model before training"
"""What the baselines do."""
WORST_SHOWN = 20
CURVE_SHOWN = 8

Item = TypeVar("Item")


@dataclass(frozen=True)
class Share:
    """A fraction with its 95% confidence interval."""

    value: float
    low: float
    high: float

    @property
    def text(self) -> str:
        """The fraction as a percentage."""
        return percent(self.value)

    @property
    def interval(self) -> str:
        """The interval, from low to high."""
        return names.interval_text(self.low, self.high)

    def clearly_above(self, other: "Share") -> bool:
        """Whether this one is larger and the intervals do not overlap."""
        return self.low > other.high


@dataclass(frozen=True)
class BoardRow:
    """A row of the table: a group of pairs and how well they are answered."""

    split: str
    name: str
    meaning: str
    n: int
    exact: Share
    normalised: Share
    f1: Share
    nearest: Share | None
    """None, like `common`, if the baselines were not measured."""
    common: Share | None
    before: BeforeTraining | None = None
    """What the model knew before training; None unless it started from a pretrained model."""

    @property
    def untrained(self) -> Share | None:
        """The share that the untrained model knew."""
        return Share(**self.before["untrained_model"]) if self.before else None

    @property
    def better_baseline(self) -> tuple[Share, str] | None:
        """The best of the baselines, and what it does; None if they were not measured."""
        if self.nearest is None or self.common is None:
            return None
        baselines = [(self.nearest, COPYING), (self.common, COMMON_ANSWER)]
        if self.untrained:
            baselines.append((self.untrained, UNTRAINED))
        return max(baselines, key=lambda each: each[0].value)


def board_rows(board: Board) -> list[BoardRow]:
    """The rows of board.json, in the order of the file."""
    return [
        BoardRow(
            split=row["split"],
            name=row["name"],
            meaning=MEANINGS.get(row["name"], ""),
            n=row["n"],
            exact=Share(**row["exact_match"]),
            normalised=Share(**row["normalised_exact_match"]),
            f1=Share(**row["f1"]),
            nearest=Share(**baselines["nearest_question"]) if (baselines := row["baselines"]) else None,
            common=Share(**baselines["most_common_answer"]) if baselines else None,
            before=row.get("before"),
        )
        for row in board["rows"]
    ]


def by_split(rows: list[BoardRow]) -> list[tuple[str, list[BoardRow]]]:
    """Group the rows by split, trained pairs first, each group with its title."""
    known = [*SPLITS, *sorted({row.split for row in rows} - set(SPLITS))]
    groups = [(SPLITS.get(split, split), [row for row in rows if row.split == split]) for split in known]
    return [(title, group) for title, group in groups if group]


def ending_text(stopping: Stopping) -> str:
    """A sentence on how the answers of a split end."""
    split = names.SPLIT_WORDS.get(stopping["split"], stopping["split"])
    ended = f"{round(stopping['stop_rate'] * stopping['n']):,} of {stopping['n']:,} answers end on their own"
    sentence = f"Endings ({split}): {ended}; {stopping['cut_early']:,} too early, {stopping['run_on']:,} too late."
    if stopping["eos_probability"] is None:
        return sentence
    return f"{sentence} The model gives {stopping['eos_probability']:.1%} to ending where the right answer ends."


def confidence_content(confidence: Confidence | None) -> dict[str, Any]:
    """Template variables on confidence: calibration method, its data, Brier score, and why there may be no curve."""
    if not confidence:
        return {}
    return {
        "method": METHODS.get(confidence["method"], confidence["method"]),
        "source": names.pairs_by_split(confidence["fitted_on"]),
        "brier": confidence["brier"],
        "too_few": _too_few(confidence["held_out"]),
    }


def _too_few(held_out: HeldOut) -> str:
    if held_out["right"] >= held_out["needed"]:
        return ""
    return (
        f"Only {format_int(held_out['right'])} of {format_int(held_out['pairs'])} answers to held-out questions are "
        f"right. At least {format_int(held_out['needed'])} are needed to estimate their precision, "
        "so --precision cannot be used."
    )


def coverage_points(confidence: Confidence | None) -> list[Threshold]:
    """Points of the precision-coverage curve, by coverage; empty if too few held-out answers are right."""
    if not confidence or _too_few(confidence["held_out"]):
        return []
    return sorted(confidence["curve"], key=lambda point: point["coverage"])


def thin_out(rows: list[Item], limit: int) -> list[Item]:
    """Select at most `limit` rows, evenly spaced, including the first and the last."""
    if len(rows) <= limit:
        return rows
    return [rows[round(place * (len(rows) - 1) / (limit - 1))] for place in range(limit)]


def worst_pairs(ledger: LedgerSummary | None) -> list[WorstPair]:
    """The pairs of the ledger's summary that have a reason to be checked."""
    return [pair for pair in (ledger["worst"] if ledger else [])[:WORST_SHOWN] if pair["why"]]
