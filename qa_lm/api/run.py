"""A run folder as an object: ask the model, read the results."""

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qa_lm.config.enums import AnswerMode
from qa_lm.config.targets import import_trusted
from qa_lm.data.questions import question_of
from qa_lm.errors import UserError
from qa_lm.run import reader, run_folder
from qa_lm.templates import placeholders

if TYPE_CHECKING:
    from qa_lm.evaluation.evaluate import EvaluatedPair
    from qa_lm.inference.answerer import Answerer


@dataclass(frozen=True, init=False)
class Run:
    """A run in its folder.

        run = qa_lm.Run("outputs/faq")
        run.ask("What is the capital of France?")
        run.metrics["recall"], run.report

    Args:
        folder: the run folder. While the run trains, only `ask` works, with the best weights so far.
        trust: the package or packages that define your own model class, if they are not imported yet.

    Raises:
        UserError: the folder is not a run folder.
    """

    folder: Path

    def __init__(self, folder: str | Path, trust: str | list[str] | None = None) -> None:
        import_trusted(trust)
        object.__setattr__(self, "folder", Path(folder).expanduser())
        if not (self.folder / run_folder.CONFIG).is_file():
            raise UserError(f"{folder}: not a run folder: {run_folder.CONFIG} is missing")

    def ask(self, question: str, max_new_tokens: int = 64, mode: str | None = None, **columns: str) -> str:
        """The model's answer to a question.

        Args:
            question: the question.
            max_new_tokens: maximum length of the answer, in tokens.
            mode: `free`, `known`, `nearest` or `best`; None for what the run chose.
            columns: texts of other columns in the prompt, such as `context`.

        Raises:
            UserError: no weights exist yet, they are damaged, or the question is empty or too long.
        """
        template, texts = self.answerer.template, {**columns, "question": question}
        needed = placeholders(template.question_parts)
        if not {*needed} <= {*texts} <= {*needed, "question"}:
            call = ", ".join(["question", *(f"{name}=..." for name in needed if name != "question")])
            raise UserError(f"{self.folder}: this model is asked with {', '.join(needed)}: ask({call})")
        filled = question_of(template, texts)
        (answer,) = self.answerer.answer([filled], max_new_tokens, mode=AnswerMode(mode) if mode else None)
        return answer.answer

    @functools.cached_property
    def answerer(self) -> "Answerer":
        """The model with its tokenizer and prompt template, for several questions at once, probabilities and sampling.

        It is loaded once.
        """
        from qa_lm.inference.in_progress import load_answerer  # imported late: torch takes seconds

        return load_answerer(self.folder)

    @property
    def metrics(self) -> dict[str, Any]:
        """The content of metrics.json: recall, losses, seconds, ..."""
        return dict(reader.read_metrics(self.folder))

    @property
    def board(self) -> dict[str, Any]:
        """The content of board.json: exact match and F1 by group of pairs, with intervals and baselines."""
        return dict(reader.read_board(self.folder))

    @property
    def answers(self) -> "list[EvaluatedPair]":
        """The evaluated pairs, each with the model's answer: the lines of answers.jsonl."""
        from qa_lm.evaluation.evaluate import EvaluatedPair

        records: list[dict[str, Any]] = [dict(record) for record in reader.read_answers(self.folder)]
        for record in records:
            if record["eos_log_probability"] is None:  # JSON has no nan
                record["eos_log_probability"] = float("nan")
        return [EvaluatedPair(**record) for record in records]

    @property
    def report(self) -> Path:
        """The path of report.html."""
        return reader.finished_file(self.folder, run_folder.REPORT_HTML)
