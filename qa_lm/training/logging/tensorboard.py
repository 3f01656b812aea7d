"""TensorBoard events of a run.

TensorBoard orders charts by the names of their tags and draws one chart per tag, with a line per run. So that it opens
on both losses in one chart, they are written a second time, under one tag, as two runs below the run's own: `train` and
`validation`. The names of the groups set the order of the pages:

| group | page | place |
|---|---|---|
| `learning/` | Time Series, Scalars | first: train and validation loss, then recall |
| `learning results/` | HParams | the first metrics: there " " sorts before "/", on the other pages after it |
| `optim/`, `perf/`, `train/`, `val/` | all | after those |

The settings of a run are written without a list of columns for the HParams page. TensorBoard then makes the list from
all runs that it finds, and puts the settings that differ first.
"""

import errno
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from torch.utils.tensorboard.summary import hparams
from torch.utils.tensorboard.writer import SummaryWriter

from qa_lm import names
from qa_lm.errors import sanitize
from qa_lm.evaluation.evaluate import EvaluatedPair

ENTITIES = {ord(character): f"&#{ord(character)};" for character in "&<>|\\`*_[]()!~#\"'"}
TOGETHER = {
    "train/loss": ("train", "learning/loss"),
    "val/loss": ("validation", "learning/loss"),
    "train/recall": ("train", "learning/recall"),
    "val/exact_match": ("validation", "learning/recall"),
}
"""Values that share a chart: the name to a run below the run's own, and the tag of the chart."""
END, RESULTS = "end/", "learning results/"
"""Prefix of the final values, and what TensorBoard calls it."""
FINAL = ("best_val_loss", "recall", "seconds", "val_exact_match")
"""Values of metrics.json that are logged at the end; the metrics of the HParams page."""
BASELINES = ("nearest_question", "most_common_answer")


class EventsLogger(TensorBoardLogger):
    """TensorBoard events straight in the run folder, without the logger's own hparams.yaml.

    Args:
        save_dir: the run folder.
        begin: the step at which a run resumes; TensorBoard drops what earlier files have of it and of later steps.
        go_on: whether training continues, with one warning, when events cannot be written.
    """

    def __init__(self, save_dir: str | Path, begin: int | None = None, go_on: bool = False) -> None:
        folder = Path(save_dir)
        for each in (folder, *(folder / run for run, _ in TOGETHER.values())):
            _after_earlier_files(each)
        super().__init__(save_dir=folder, name="", version="", default_hp_metric=False, purge_step=begin)
        self.folder, self.begin, self.go_on, self.ended = folder, begin, go_on, False
        self.newest: dict[str, Any] = {}
        """Step and values of the newest step that has any."""
        self._writers: dict[str, SummaryWriter] = {}  # of the runs below the run's own, by name

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Write the values, and remember those of the newest step."""
        self.attempt(lambda: self._write(metrics, step))
        if step != self.newest.get("step"):
            self.newest = {"step": step, "values": {}}
        self.newest["values"] |= {tag: float(value) for tag, value in metrics.items()}

    def log_again(self, newest: dict[str, Any]) -> None:
        """Write the values of the step at which a run resumes: TensorBoard drops what the earlier file has of it."""
        if newest.get("step") is not None and newest["step"] == self.begin:
            self.log_metrics(newest["values"], newest["step"])

    @rank_zero_only
    def log_start(self, hyperparameters: dict[str, Any]) -> None:
        """Begin the HParams row."""
        _, row, _ = hparams(hyperparameters, {})
        self.attempt(lambda: self.experiment._get_file_writer().add_summary(row))

    @rank_zero_only
    def log_texts(self, answers: list[EvaluatedPair], board: dict[str, Any], step: int) -> None:
        """Write sample answers and the results table to the Text page, and mark the run as finished."""
        _, _, end = hparams({}, {})

        def write() -> None:
            self.experiment.add_text("answers", _answers_table(answers), step)
            self.experiment.add_text("board", _board_table(board), step)
            self.experiment._get_file_writer().add_summary(end)

        self.attempt(write)

    def save(self) -> None:
        """Flush what is buffered."""
        for writer in self._all_writers():
            self.attempt(writer.flush)

    def finalize(self, status: str) -> None:
        """Flush only: the Trainer calls this before the final values are known; a closed writer would begin a file."""
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
            print(f"warning: no more TensorBoard events: {error.strerror or error}; training continues", flush=True)

    def close(self) -> None:
        """End the events files."""
        for writer in self._all_writers():
            self.attempt(writer.close)

    @rank_zero_only
    def _write(self, metrics: Mapping[str, float], step: int | None) -> None:
        super().log_metrics({_shown(tag): value for tag, value in metrics.items()}, step)
        for tag, (run, chart) in TOGETHER.items():
            if tag in metrics:
                self._writer(run).add_scalar(chart, metrics[tag], step)

    def _writer(self, run: str) -> SummaryWriter:
        if run not in self._writers:
            folder = self.folder / run
            if folder.is_symlink():  # someone else's run may hold one
                raise OSError(errno.ELOOP, "is a link", str(folder))
            self._writers[run] = SummaryWriter(folder, purge_step=self.begin)
        return self._writers[run]

    def _all_writers(self) -> list[SummaryWriter]:
        return [self.experiment, *self._writers.values()]


def _shown(tag: str) -> str:
    """What TensorBoard calls a value."""
    return RESULTS + tag.removeprefix(END) if tag.startswith(END) else tag


def _after_earlier_files(folder: Path) -> None:
    """Wait until the second in which another events file was created is over: TensorBoard reads the files of a run in
    the order of their names, which start with it."""
    created = [path.name.split(".")[3] for path in folder.glob("events.out.tfevents.*")]
    left = max((int(second) for second in created if second.isdecimal()), default=0) + 1 - time.time()
    if 0 < left <= 1:  # more is a clock that was set back
        time.sleep(left)


def _answers_table(answers: list[EvaluatedPair]) -> str:
    lines = [f"| {_cell(a.question)} | {_cell(a.generated)} | {_cell(a.answer)} | {a.split} |" for a in answers[:20]]
    return "\n".join(["| question | generated | answer | split |", "|---|---|---|---|", *lines])


def _board_table(board: dict[str, Any]) -> str:
    columns = ("pairs", "n", names.EXACT, names.NORMALISED, names.F1, names.NEAREST, names.COMMON)
    lines = [f"| {' | '.join(columns)} |", "|---|" + "---:|" * 6]
    for row in board["rows"]:
        shares = [row["exact_match"], row["normalised_exact_match"], row["f1"]]
        shares += [(row["baselines"] or {}).get(name) for name in BASELINES]
        lines.append(f"| {row['split']}: {row['name']} | {row['n']} | {' | '.join(map(_interval, shares))} |")
    return "\n".join(lines)


def _interval(found: dict[str, float] | None) -> str:
    return f"{found['value']:.1%} ({names.interval_text(found['low'], found['high'])})" if found else "-"


def _cell(text: str) -> str:
    """Foreign text as one cell of Markdown: no character of it is read as Markdown or HTML. TensorBoard takes out
    scripts by itself, but would load a picture, and show a link under another's name."""
    return sanitize(" ".join(text.split())).translate(ENTITIES)
