"""TensorBoard events of a run."""

import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from torch.utils.tensorboard.summary import hparams

from qa_lm import names
from qa_lm.answering.evaluate import EvaluatedPair
from qa_lm.errors import harmless
from qa_lm.training.loggers import SecondLogger

ENTITIES = {ord(character): f"&#{ord(character)};" for character in "&<>|\\`*_[]()!~#\"'"}
ENDS = {"end/val_loss": "final_val_loss", "end/best_val_loss": "best_val_loss", "end/recall": "recall"}
"""Columns of the HParams page to what metrics.json calls them."""
BASELINES = ("nearest_question", "most_common_answer")


class EventsLogger(TensorBoardLogger):
    """TensorBoard events straight in the run folder, without the logger's own hparams.yaml.

    Args:
        folder: the run folder.
        go_on: whether events that cannot be written are only told, once.
        begin: the step at which a run goes on: what earlier files say of it and of later ones is not shown.
    """

    def __init__(self, folder: Path, begin: int | None = None, go_on: bool = False) -> None:
        _after_earlier_files(folder)
        super().__init__(save_dir=folder, name="", version="", default_hp_metric=False, purge_step=begin)
        self.go_on, self.ended = go_on, False
        self.newest: dict[str, Any] = {}
        """Step and values of the newest step that has any."""

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Write the values, and remember those of the newest step."""
        self.attempt(lambda: super(EventsLogger, self).log_metrics(metrics, step))
        if step != self.newest.get("step"):
            self.newest = {"step": step, "values": {}}
        self.newest["values"] |= {tag: float(value) for tag, value in metrics.items()}

    def log_again(self, newest: dict[str, Any]) -> None:
        """Write the values of the step at which a run goes on: what was written then is out of date from there on."""
        if newest.get("step") is not None:
            self.log_metrics(newest["values"], newest["step"])

    @rank_zero_only
    def log_start(self, hyperparameters: dict[str, Any]) -> None:
        """Begin the HParams row."""
        columns, row, _ = hparams(hyperparameters, dict.fromkeys(ENDS, math.nan))

        def write() -> None:
            for summary in (columns, row):
                self.experiment._get_file_writer().add_summary(summary)

        self.attempt(write)

    def save(self) -> None:
        """Flush what is buffered."""
        self.attempt(lambda: self.experiment.flush())

    def finalize(self, status: str) -> None:
        """Flush only: the Trainer calls this before the last metrics are known, and a closed writer would go on in a
        second file."""
        self.save()

    def attempt(self, write: Callable[[], None]) -> None:
        """Write events, unless an earlier write has failed."""
        if self.ended:
            return
        try:
            write()
        except OSError as error:  # the thread that writes has ended and does not begin again
            if not self.go_on:
                raise
            self.ended = True
            print(f"warning: no more TensorBoard events: {error.strerror or error}; training goes on", flush=True)

    def close(self) -> None:
        """End the events file."""
        self.attempt(lambda: self.experiment.close())


def log_begin(trainer: pl.Trainer, hyperparameters: dict[str, Any]) -> None:
    """Give the loggers the settings: a run that fails, or is killed, has its row on the HParams page, too."""
    for logger in trainer.loggers:
        if isinstance(logger, EventsLogger):
            logger.log_start(hyperparameters)
        else:
            logger.log_hyperparams(hyperparameters)


def log_end(
    trainer: pl.Trainer,
    hyperparameters: dict[str, Any],
    metrics: dict[str, Any],
    answers: list[EvaluatedPair],
    board: dict[str, Any],
) -> None:
    """Write the HParams row, the board and sample answers, and end the events file and the other logger."""
    logger = trainer.logger
    if not isinstance(logger, EventsLogger):
        return
    values = {tag: math.nan if metrics[name] is None else metrics[name] for tag, name in ENDS.items()}
    step = trainer.global_step
    lines = [f"| {_cell(a.question)} | {_cell(a.generated)} | {_cell(a.answer)} | {a.split} |" for a in answers[:20]]
    table = "\n".join(["| question | generated | answer | split |", "|---|---|---|---|", *lines])
    lines = [
        f"| {row['split']}: {row['name']} | {row['n']} | {_interval(row['exact_match'])} | "
        f"{_interval(row['normalised_exact_match'])} | {_interval(row['f1'])} | "
        f"{' | '.join(_interval((row['baselines'] or {}).get(name)) for name in BASELINES)} |"
        for row in board["rows"]
    ]
    columns = ("pairs", "n", names.EXACT, names.NORMALISED, names.F1, names.NEAREST, names.COMMON)
    heading = f"| {' | '.join(columns)} |"
    shown = "\n".join([heading, "|---|" + "---:|" * 6, *lines])

    def write() -> None:
        logger.log_hyperparams(hyperparameters, values, step=step)
        logger.experiment.add_text("answers", table, step)
        logger.experiment.add_text("board", shown, step)

    logger.attempt(write)
    logger.close()
    for other in trainer.loggers[1:]:
        assert isinstance(other, SecondLogger)
        other.end(values, step)


def _after_earlier_files(folder: Path) -> None:
    """Let the second pass in which another events file was begun: TensorBoard reads the files of a run in the order of
    their names, which begin with it."""
    begun = [path.name.split(".")[3] for path in folder.glob("events.out.tfevents.*")]
    left = max((int(second) for second in begun if second.isdecimal()), default=0) + 1 - time.time()
    if 0 < left <= 1:  # more is a clock that was set back
        time.sleep(left)


def _interval(found: dict[str, float] | None) -> str:
    return f"{found['value']:.1%} ({found['low']:.1%} to {found['high']:.1%})" if found else "-"


def _cell(text: str) -> str:
    """Foreign text as one cell of Markdown: no character of it is read as Markdown or HTML. TensorBoard takes out
    scripts by itself, but would load a picture, and show a link under another's name."""
    return harmless(" ".join(text.split())).translate(ENTITIES)
