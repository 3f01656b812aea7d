"""board.json as the report shows it: what each row means, its numbers, and what is beside them."""

from dataclasses import dataclass
from typing import Any, TypeVar

from qa_lm import names
from qa_lm.reporting.wording import percent, whole
from qa_lm.run.reader import Board, Confidence, HeldOut, LedgerSummary, Measured, Stopping, Threshold, WorstPair

SPLITS = {
    "train": "Trained",
    "validation": "Held out for validation",
    "test": "Held out for the test",
    "given": "The pairs that were asked",
}
WHOLE = tuple(names.WHOLE_SPLITS.values())
"""Names of the rows of whole splits; the other rows are parts of them."""
MEANINGS = {
    names.WHOLE_SPLITS["train"]: "asked again exactly as they were trained: recall",
    names.WHOLE_SPLITS["validation"]: "every pair that was kept out of training",
    names.WHOLE_SPLITS["test"]: "every pair that was kept for the test",
    names.WHOLE_SPLITS["given"]: "every pair that was asked",
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

Item = TypeVar("Item")


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
    n: int
    exact: Share
    normalised: Share
    f1: Share
    nearest: Share
    common: Share


def share(measured: Measured | None) -> Share:
    """A share as board.json has it."""
    return Share(measured["value"], measured["low"], measured["high"]) if measured else Share(None, None, None)


def board_rows(board: Board) -> list[BoardRow]:
    """The rows in the file's order."""
    return [
        BoardRow(
            split=row["split"],
            name=row["name"],
            meaning=MEANINGS.get(row["name"], ""),
            n=row["n"],
            exact=share(row["exact_match"]),
            normalised=share(row["normalised_exact_match"]),
            f1=share(row["f1"]),
            nearest=share(row["baselines"] and row["baselines"]["nearest_question"]),
            common=share(row["baselines"] and row["baselines"]["most_common_answer"]),
        )
        for row in board["rows"]
    ]


def by_split(rows: list[BoardRow]) -> list[tuple[str, list[BoardRow]]]:
    """The rows under the titles of their splits, trained ones first."""
    known = [*SPLITS, *sorted({row.split for row in rows} - set(SPLITS))]
    groups = [(SPLITS.get(split, split), [row for row in rows if row.split == split]) for split in known]
    return [(title, group) for title, group in groups if group]


def ending_words(found: Stopping) -> str:
    """How the answers of a split end, as a sentence."""
    split = names.SPLIT_WORDS.get(found["split"], found["split"])
    ended = f"{round(found['stop_rate'] * found['n']):,} of {found['n']:,} answers end on their own"
    sentence = f"Endings ({split}): {ended}; {found['cut_early']:,} too early, {found['run_on']:,} too late."
    if found["eos_probability"] is None:
        return sentence
    return f"{sentence} The model gives {found['eos_probability']:.1%} to ending where the right answer ends."


def confidence_words(confidence: Confidence | None) -> dict[str, Any]:
    """How sure answers are: by which method, fitted on what, how good; and why there may be no curve."""
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
        f"Only {whole(held_out['right'])} of {whole(held_out['pairs'])} answers to held-out questions are right. At "
        f"least {whole(held_out['needed'])} are needed to say how often its confident answers are right, so "
        "--precision is refused."
    )


def coverage_points(confidence: Confidence | None) -> list[Threshold]:
    """Threshold, coverage and precision, by coverage; none where too few held-out answers are right."""
    if not confidence or _too_few(confidence["held_out"]):
        return []
    return sorted(confidence["curve"], key=lambda point: point["coverage"])


def thinned(rows: list[Item], limit: int) -> list[Item]:
    """At most `limit` of the rows, evenly spaced, the first and the last among them."""
    if len(rows) <= limit:
        return rows
    return [rows[round(place * (len(rows) - 1) / (limit - 1))] for place in range(limit)]


def worst_pairs(ledger: LedgerSummary | None) -> list[WorstPair]:
    """The pairs that there is a reason to check."""
    return [pair for pair in (ledger["worst"] if ledger else [])[:WORST_SHOWN] if pair["why"]]
