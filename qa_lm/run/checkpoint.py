"""The checkpoints of a run, and how they are read: tensors and plain values, never code."""

import pickle
from pathlib import Path
from typing import Any

import torch

from qa_lm.errors import UserError, first_line

STATE = "qa_lm"
"""Key of what a checkpoint holds beside Lightning's own: see `qa_lm.training.checkpointing.last_checkpoint`."""


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Tensors, mapped from the file, and plain values; code in it does not run.

    Raises:
        UserError: the file is damaged, or holds something else.
    """
    try:
        found: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError:
        raise UserError(f"{path}: refused: it holds pickled objects") from None
    except (RuntimeError, OSError, ValueError) as error:
        raise UserError(f"{path}: is not a valid checkpoint: {first_line(error)}") from None
    return found
