"""Read the checkpoints of a run: tensors and plain values, never code."""

import pickle
from pathlib import Path
from typing import Any

import torch

from qa_lm.errors import UserError, first_line

STATE = "qa_lm"
"""Key of qa_lm's own state in a checkpoint, next to Lightning's: see `qa_lm.training.checkpointing.last_checkpoint`."""


def read_checkpoint(path: Path, mapped: bool = True) -> dict[str, Any]:
    """Read a checkpoint. Only tensors and plain values are allowed; code in the file is not run.

    Args:
        path: the checkpoint.
        mapped: memory-map the tensors, so that only those that are used are read. On Windows a mapped file cannot be
            replaced, so set it to False to keep the tensors.

    Raises:
        UserError: the file is damaged or not a checkpoint.
    """
    try:
        checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError:
        raise UserError(f"{path}: refused: contains pickled objects") from None
    except (RuntimeError, OSError, ValueError) as error:
        raise UserError(f"{path}: not a valid checkpoint: {first_line(error)}") from None
    return checkpoint
