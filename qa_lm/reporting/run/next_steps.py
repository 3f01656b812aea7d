"""What to do after a run: open the report, ask the model, see the curves, and train so that it learns more."""

import os
import re
import shlex
import shutil
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qa_lm.names import BUILTIN_PAIRS
from qa_lm.reporting.run.command import given_command
from qa_lm.reporting.wording import decimal, format_int, pluralize
from qa_lm.run.reader import RunFiles, finite, read_run
from qa_lm.run.run_folder import REPORT_HTML

LITTLE = 0.5
"""A run whose recall is below this has learnt little."""
FEW_STEPS = 500
"""Fewer optimizer steps than this are few for a model trained from scratch."""
FALLING = 0.98
"""The train loss was still falling if the last epoch's is below this fraction of the previous epoch's."""
MAX_QUESTION = 60
"""Maximum length of the question in a printed command, in characters."""
CHOSEN_BY_THE_RECIPE = ("data.packing", "data.row_tokens", "data.batch_size", "data.shuffle")
SOURCES = ("data", "data.path", "data.hub")


@dataclass(frozen=True)
class Terminal:
    """Where a script was started, so that the commands it prints work there."""

    here: Path
    """The working directory."""
    scripts: Path | None
    """The folder of the scripts; None if the installed command `qa-lm` is used."""
    python: str = sys.executable

    def script(self, name: str, *arguments: str) -> str:
        """The command that runs a script."""
        if self.scripts is None:
            return quoted(["qa-lm", Path(name).stem, *arguments])
        return quoted([self._python(), self.path(self.scripts / name), *arguments])

    def tensorboard(self, folder: str) -> str:
        """The command that starts TensorBoard."""
        program_path = Path(self.python).with_name("tensorboard")
        program = [self.path(program_path)] if program_path.is_file() else [self._python(), "-m", "tensorboard.main"]
        return quoted([*program, "--logdir", folder])

    def path(self, path: Path) -> str:
        """Shorten a path: relative to the working directory if it is inside."""
        inside = os.path.relpath(path, self.here)
        return str(path) if inside.split(os.sep)[0] == ".." else inside

    def _python(self) -> str:
        near = self.path(Path(self.python))
        return "python" if near == self.python == shutil.which("python") else near


def quoted(words: list[str]) -> str:
    """Join words into a shell command, with double quotes where they suffice."""
    return " ".join(
        f'"{word}"' if shlex.quote(word) != word and not re.search(r'["$`\\!]', word) else shlex.quote(word)
        for word in words
    )


def next_steps(folder: Path, terminal: Terminal) -> str:
    """The last lines that a run prints: what to do if it learnt little, its report, how to ask it, its curves."""
    run = read_run(folder)
    lines = []
    if reasons := why_little(run):
        lines = textwrap.wrap(f"The model learnt little: {'; '.join(reasons)}.", 120)
        lines += [f"next:   {terminal.script('train.py', *command)}" for command in [next_arguments(run)] if command]
        lines += [""]
    near = terminal.path(folder)
    lines.append(f"report: {quoted([terminal.path(folder / REPORT_HTML)])}")
    lines.append(f"ask:    {terminal.script('ask.py', near, *_question(run))}")
    if any(folder.glob("events.out.tfevents.*")):
        first = Path(near).parts[0]
        lines.append(f"curves: {terminal.tensorboard(first if first in ('outputs', 'multirun') else near)}")
    return "\n".join(lines)


def why_little(run: RunFiles) -> list[str]:
    """Likely reasons for a recall below `LITTLE`, from the run's files; empty if recall is not that low."""
    metrics = run.metrics
    recall, steps = metrics.get("recall"), metrics.get("steps")
    if recall is None or recall >= LITTLE or not steps:
        return []
    reasons = [*_epoch_kept(run)]
    losses = [loss for row in run.epochs if (loss := row.get("train_loss")) is not None]
    if len(losses) > 1 and losses[-1] < FALLING * losses[-2]:
        fall = f"{decimal(losses[-2])} to {decimal(losses[-1])} in the last epoch"
        reasons.append(f"the training loss was still falling ({fall})")
    if steps < FEW_STEPS or not reasons:
        rate = f"at a learning rate of {finite(run.config['optimizer']['lr']):g}"
        reasons.insert(0, f"{pluralize(steps, 'optimizer step')} in total {rate}")
    return reasons


def _epoch_kept(run: RunFiles) -> list[str]:
    """Whether the run stopped early or keeps the weights of an earlier epoch."""
    metrics, monitor = run.metrics, run.config["monitor"]
    best, last = metrics["best_epoch"], metrics["epochs_run"]
    stopped = f"training stopped early, at epoch {format_int(last)}" if metrics["stopped_early"] else ""
    if best is None or best == last or metrics["exported_weights"] != "best":
        return [stopped] if stopped else []
    kept = f"model/ holds epoch {format_int(best)}, the best by {monitor}"
    why = ", which says little about held-out facts" if monitor.startswith("val/") else ""
    return [f"{stopped}, and {kept}{why}" if stopped else f"{kept}, of {format_int(last)}{why}"]


def next_arguments(run: RunFiles) -> list[str]:
    """Arguments of train.py that should memorise these pairs; empty if they are not known."""
    typed = [] if {"-m", "--multirun"} & set(given_command(run.environment)) else given_command(run.environment)[1:]
    typed = [word for word in typed if "=" in word and not word.startswith(("hydra.", "resume=", "-"))]
    if run.config["model"].get("path") is not None:
        kept = [word for word in typed if _name(word) not in ("experiment", "model", "goal")]
        return [] if run.config["stop_at_recall"] else ["experiment=finetune", *kept, "goal=recall"]
    if run.config["stop_at_recall"] is None:
        return ["experiment=recall", *_data_arguments(run.config["data"], typed)]
    schedule = finite(run.config["optimizer"]["schedule_epochs"])
    limit = finite(run.config["trainer"].get("max_epochs"))
    if schedule is None:
        return []
    longer = {"optimizer.schedule_epochs": f"{2 * schedule:.0f}"}
    if limit is not None and limit < 3 * schedule:
        longer["trainer.max_epochs"] = f"{3 * schedule:.0f}"
    kept = [word for word in typed if _name(word) not in longer]
    if not kept:
        kept = ["experiment=recall", *_data_arguments(run.config["data"], [])]
    return [*kept, *(f"{name}={value}" for name, value in longer.items())]


def _data_arguments(data: dict[str, Any], typed: list[str]) -> list[str]:
    """Arguments that name the data and how to read it: as typed, else from the settings."""
    kept = [word for word in typed if _name(word).split(".")[0] == "data" and word != "data=file"]
    kept = [word for word in kept if _name(word) not in CHOSEN_BY_THE_RECIPE]
    if any(_name(word) in SOURCES for word in kept):
        return kept
    if data["hub"]:
        return ["data=hub", f"data.hub={data['hub']}", *kept]
    path = data["path"]
    if path in BUILTIN_PAIRS:
        return [f"data={path}", *kept]
    if not path:
        return kept
    return [f"data.path={path if isinstance(path, str) else '[' + ','.join(map(str, path)) + ']'}", *kept]


def _name(word: str) -> str:
    return word.lstrip("+").partition("=")[0]


def _question(run: RunFiles) -> list[str]:
    """A question to ask, preferably one that is answered right; empty if the prompt has other fields."""
    if set(re.findall(r"{(\w+)}", run.config["data"]["prompt"])) != {"question"}:
        return []
    asked = sorted(run.answers, key=lambda answer: (not answer["exact_match"], answer["split"] != "train"))
    questions = [answer["question"] for answer in asked]
    fit = [each for each in questions if each.isprintable() and 0 < len(each) <= MAX_QUESTION and each[0] not in "- "]
    return fit[:1]
