"""Errors of a process whose run has lost another process."""

import torch

from qa_lm.errors import LostProcess

MESSAGES = (
    "connection closed by peer",
    "connection reset by peer",
    "broken pipe",
    "timed out",
    "timeout",
    "nccl error",
)


def as_lost_process(error: BaseException) -> LostProcess | None:
    """Convert an error of torch.distributed that means that another process is gone; None for any other error."""
    text = str(error)
    if not (isinstance(error, torch.distributed.DistError) or _names_a_connection(error, text.lower())):
        return None
    if "clients joined" in text or "client socket" in text:
        return LostProcess(
            "not all processes of this run came within distributed.timeout_seconds; start all of them, with the same "
            "master address and port"
        )
    return LostProcess(
        "another process of this run ended, or did not answer within distributed.timeout_seconds; see its own output"
    )


def _names_a_connection(error: BaseException, text: str) -> bool:
    return (
        isinstance(error, RuntimeError)
        and any(backend in text for backend in ("gloo", "nccl", "store", "barrier"))
        and any(message in text for message in MESSAGES)
    )
