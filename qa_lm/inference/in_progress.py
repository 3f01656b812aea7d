"""Load the model of an unfinished run: its best weights so far, with its tokenizer and prompt template.

Checkpoints are replaced by renaming, so a checkpoint stays readable while the next one is saved.
"""

import json
import sys
import time
from pathlib import Path

from torch import Tensor
from transformers import PreTrainedModel

from qa_lm.data.encoding import PromptTemplate
from qa_lm.data.pretrained.place import Base
from qa_lm.data.tokenizer import load_tokenizer
from qa_lm.data.vocabulary.rows import keep_rows, old_ids_in
from qa_lm.errors import UserError
from qa_lm.inference.answerer import Answerer, causal_lm_from_weights, check_vocabulary, load_causal_lm
from qa_lm.modeling.lora import base_of, load_merged
from qa_lm.run import run_folder

PREFIX = "model."
"""Prefix of the names of the network's weights in a checkpoint."""
ATTEMPTS = 5
"""How often checkpoints are compared with the manifest, because one may be replaced meanwhile."""


def is_in_progress(folder: Path) -> bool:
    """Whether a run is still training or was interrupted, which means that it has no model/ yet."""
    return (folder / run_folder.CONFIG).is_file() and not (folder / run_folder.MODEL).is_dir()


def load_answerer(folder: Path) -> Answerer:
    """Load the model of a run folder or a model folder. For an unfinished run, load its best weights so far.

    For an unfinished run, the step of the weights is printed to standard error.

    Raises:
        UserError: see `Answerer.load`; or the run has saved no checkpoint yet.
    """
    return _best_so_far(folder) if is_in_progress(folder) else Answerer.load(folder)


def _best_so_far(folder: Path) -> Answerer:
    from qa_lm.run.checkpoint import read_checkpoint  # Lightning takes seconds
    from qa_lm.run.manifest import is_intact
    from qa_lm.run.run_folder import BEST, LAST

    checkpoints = folder / run_folder.CHECKPOINTS
    saved = [checkpoints / name for name in (BEST, LAST) if (checkpoints / name).is_file()]
    for attempt in range(ATTEMPTS):
        path = next((each for each in saved if is_intact(each) is not False), None)
        if path or not saved:
            break
        time.sleep(0.05 * attempt)
    if path is None:
        why = "its checkpoints are damaged" if saved else "it has saved no weights yet (see checkpoint.every_seconds)"
        raise UserError(f"{folder}: this run is not finished, and {why}")
    checkpoint = read_checkpoint(path, mapped=False)
    try:
        weights = {name.removeprefix(PREFIX): value for name, value in checkpoint["state_dict"].items()}
        step, epochs = int(checkpoint["global_step"]), int(checkpoint["epoch"]) + 1
    except (KeyError, TypeError, ValueError, AttributeError):
        raise UserError(f"{path}: is not a valid checkpoint of a run") from None
    architecture = checkpoints / run_folder.MODEL
    tokenizer, template = load_tokenizer(architecture), PromptTemplate.load(architecture)
    model = _network(folder, architecture, weights)
    check_vocabulary(architecture, model, tokenizer)
    print(f"note: this run is not finished; using {path}, epoch {epochs}, step {step}", file=sys.stderr)
    return Answerer(model, tokenizer, template)


def _network(run: Path, architecture: Path, weights: dict[str, Tensor]) -> PreTrainedModel:
    """The model with these weights; the checkpoints of a LoRA adapter hold no others."""
    base = base_of(architecture)
    if base is None:
        return causal_lm_from_weights(architecture, weights)
    environment = json.loads((run / run_folder.ENVIRONMENT).read_text(encoding="utf-8"))
    if not base.is_dir() or Base(str(base), base).sha256() != environment["base_sha256"]:
        raise UserError(f"{run}: this run is not finished, and its pretrained model {base} has changed or is gone")
    model = load_causal_lm(base)
    if old_ids := old_ids_in(architecture):
        keep_rows(model, old_ids)
    return load_merged(model, architecture, weights).eval()
