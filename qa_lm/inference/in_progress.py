"""A run that is not finished, asked: the best weights so far, with the tokenizer and template they are trained with.

Checkpoints are replaced by renaming, so one that is being read stays whole while the next is saved.
"""

import sys
from pathlib import Path

from qa_lm.data.encoding import PromptTemplate
from qa_lm.data.tokenizer import load_tokenizer
from qa_lm.errors import UserError
from qa_lm.inference.answerer import Answerer, causal_lm_with, check_vocabulary
from qa_lm.run import run_folder

PREFIX = "model."
"""Of the names of the network's weights in a checkpoint."""


def is_under_way(folder: Path) -> bool:
    """Whether a folder holds a run that trains still, or was interrupted: one without model/."""
    return (folder / run_folder.CONFIG).is_file() and not (folder / run_folder.MODEL).is_dir()


def load_answerer(folder: Path) -> Answerer:
    """The model of a run folder, or of a model folder; if the run is not finished, its best weights so far.

    Of the latter, standard error says which step they are of.

    Raises:
        UserError: see `Answerer.load`; or the run has saved nothing yet.
    """
    return _best_so_far(folder) if is_under_way(folder) else Answerer.load(folder)


def _best_so_far(folder: Path) -> Answerer:
    from qa_lm.run.checkpoint import read_checkpoint  # Lightning takes seconds
    from qa_lm.run.manifest import is_intact
    from qa_lm.run.run_folder import BEST, LAST

    checkpoints = folder / run_folder.CHECKPOINTS
    saved = [path for name in (BEST, LAST) if (path := checkpoints / name).is_file()]
    whole = next((path for path in saved if is_intact(path) is not False), None)
    if whole is None:
        why = "its checkpoints are damaged" if saved else "it has saved no weights yet (see checkpoint.every_seconds)"
        raise UserError(f"{folder}: this run is not finished, and {why}")
    checkpoint = read_checkpoint(whole, mapped=False)
    try:
        weights = {name.removeprefix(PREFIX): value for name, value in checkpoint["state_dict"].items()}
        step, epochs = int(checkpoint["global_step"]), int(checkpoint["epoch"]) + 1
    except (KeyError, TypeError, ValueError, AttributeError):
        raise UserError(f"{whole}: is not a valid checkpoint of a run") from None
    architecture = checkpoints / run_folder.MODEL
    tokenizer, template = load_tokenizer(architecture), PromptTemplate.load(architecture)
    model = causal_lm_with(architecture, weights)
    check_vocabulary(architecture, model, tokenizer)
    print(f"note: this run is not finished; asked is {whole}, epoch {epochs}, step {step}", file=sys.stderr)
    return Answerer(model, tokenizer, template)
