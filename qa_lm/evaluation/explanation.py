"""What a model was trained on, beside the question it is asked: trained, nearly trained, or new?"""

from dataclasses import dataclass
from pathlib import Path

import pyarrow
import pyarrow.parquet

from qa_lm.data.pairs import Pair
from qa_lm.errors import UserError, first_line
from qa_lm.evaluation.overlap import TrainedPairs, looked_through
from qa_lm.names import NEAR, TRAINED
from qa_lm.run.run_folder import LEDGER

TEXTS = pyarrow.schema({"question": pyarrow.string(), "answer": pyarrow.string()})
SHOWN = 3


@dataclass(frozen=True)
class Neighbour:
    """A trained pair that is like a question."""

    question: str
    answer: str
    similarity: float
    """TF-IDF cosine of the questions, from 0 to 1."""


@dataclass(frozen=True)
class Explanation:
    """How a question stands to the trained ones."""

    question_is: str
    """"trained", "near-duplicate of a trained question" or "not trained"."""
    nearest: list[Neighbour]
    """The nearest trained questions, the nearest first."""


def read_trained_pairs(run: Path) -> TrainedPairs | None:
    """The trained pairs of a run folder; None if it does not hold them."""
    path = run / LEDGER  # every trained pair
    if not path.is_file():
        return None
    try:
        columns = pyarrow.parquet.read_table(path, columns=["question", "answer"])
        columns = columns.cast(TEXTS)
        if not len(columns) or any(column.null_count for column in columns.columns):
            raise ValueError("a question or an answer is missing")
    except (OSError, ValueError, pyarrow.ArrowException) as error:
        raise UserError(f"{path}: cannot be read: {first_line(error)}") from None
    columns = columns.take(looked_through(len(columns)))
    return TrainedPairs(columns["question"].to_pylist(), columns["answer"].to_pylist())


def explain(question: str, trained: TrainedPairs) -> Explanation:
    """How the question stands to them."""
    found = [
        Neighbour(trained.questions[place], trained.answers[place], similarity)
        for place, similarity in trained.index.most_alike(question, SHOWN)
    ]
    relation = trained.relations([Pair(question, "")])[0].name
    return Explanation({TRAINED: "trained", NEAR: NEAR}.get(relation, "not trained"), found)
