"""Compare a question with the trained questions: is it trained, nearly trained, or new?"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow
import pyarrow.parquet

from qa_lm.config.enums import AnswerMode
from qa_lm.data.pairs import Pair
from qa_lm.errors import UserError, first_line
from qa_lm.evaluation.overlap import TrainedPairs
from qa_lm.inference.known_answers import KnownAnswers
from qa_lm.names import NEAR, TRAINED
from qa_lm.retrieval.known_pairs import KnownPairs, sample_indices
from qa_lm.run.run_folder import LEDGER

TEXTS = pyarrow.schema({"question": pyarrow.string(), "answer": pyarrow.string()})
NEIGHBOURS = 3


@dataclass(frozen=True)
class Neighbour:
    """A trained pair whose question is similar."""

    question: str
    answer: str
    similarity: float
    """Similarity of the asked question to this pair: by the encoder where the mode uses one, otherwise by TF-IDF."""


@dataclass(frozen=True)
class Explanation:
    """Overlap of a question with the trained questions."""

    question_is: str
    """"trained", "near-duplicate of a trained question" or "not trained"."""
    nearest: list[Neighbour]
    """The nearest trained pairs, one for each of the first answers, in the order of `KnownAnswers.nearest_pairs`."""


def read_trained_pairs(run: Path) -> TrainedPairs | None:
    """Read the trained pairs of a run folder; None if it has no ledger."""
    path = run / LEDGER  # contains every trained pair
    if not path.is_file():
        return None
    try:
        with pyarrow.parquet.ParquetFile(path) as file:  # `read_table` and `take` import pandas
            columns = file.read(columns=["question", "answer"]).cast(TEXTS)
        if not len(columns) or any(column.null_count for column in columns.columns):
            raise ValueError("a question or an answer is missing")
    except (OSError, ValueError, pyarrow.ArrowException) as error:
        raise UserError(f"{path}: cannot be read: {first_line(error)}") from None
    kept = sample_indices(len(columns))
    if len(kept) < len(columns):
        columns = columns.take(kept)
    return TrainedPairs(columns["question"].to_pylist(), columns["answer"].to_pylist())


class Explainer:
    """Compares questions with the trained pairs.

    Args:
        trained: the trained pairs, to say whether a question is one of them.
        known: ranks the neighbours; None for a model of an older version, whose folder holds no known pairs.
    """

    def __init__(self, trained: TrainedPairs, known: KnownAnswers | None) -> None:
        self.trained = trained
        self.known = known or KnownAnswers(KnownPairs(trained.questions, trained.answers))

    def explain(self, questions: Sequence[str], mode: AnswerMode) -> list[Explanation]:
        """Compare questions that were answered in this mode."""
        pairs = self.known.pairs
        nearest = self.known.nearest_pairs(questions, mode, NEIGHBOURS)
        overlaps = self.trained.overlaps([Pair(question, "") for question in questions])
        return [
            Explanation(
                {TRAINED: "trained", NEAR: NEAR}.get(overlap.name, "not trained"),
                [Neighbour(pairs.questions[place], pairs.answers[place], similarity) for place, similarity in places],
            )
            for overlap, places in zip(overlaps, nearest, strict=True)
        ]


def explainer_of(run: Path, known: KnownAnswers | None) -> Explainer | None:
    """Compare with the trained pairs of a run folder; None if it has no ledger."""
    trained = read_trained_pairs(run)
    return None if trained is None else Explainer(trained, known)
