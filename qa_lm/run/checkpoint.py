"""The checkpoints of a run, and how they are read: tensors and plain values, never code."""

import pickle
from pathlib import Path
from typing import Any

import torch

from qa_lm.errors import UserError, first_line

STATE = "qa_lm"
"""Key of what a checkpoint holds beside Lightning's own: see `qa_lm.training.checkpointing.last_checkpoint`."""


def read_checkpoint(path: Path, mapped: bool = True) -> dict[str, Any]:
    """Read tensors and plain values; code in the file does not run.

    Args:
        path: the checkpoint.
        mapped: map tensors from the file, so that only those that are used are read. Windows refuses to replace a file
            that is mapped, so a reader that keeps the tensors copies them into memory instead.

    Raises:
        UserError: the file is damaged, or holds something else.
    """
    try:
        found: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError:
        raise UserError(f"{path}: refused: it holds pickled objects") from None
    except (RuntimeError, OSError, ValueError) as error:
        raise UserError(f"{path}: is not a valid checkpoint: {first_line(error)}") from None
    return found
