"""A logger that cannot end a run."""

import re
from argparse import Namespace
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import Logger, WandbLogger
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from lightning.pytorch.utilities.seed import isolate_rng

from qa_lm.errors import first_line, sanitize

Found = TypeVar("Found")


class GuardedLogger(Logger):
    """Passes everything on to a logger, until it raises an error: one line says so, and training continues.

    Args:
        logger: the logger. Attributes that `Logger` does not have, such as `experiment`, are its own.
        key: how messages call it.
        resumed: whether it already has the settings of the run.
    """

    def __init__(self, logger: Logger, key: str, resumed: bool = False) -> None:
        super().__init__()
        self.logger, self.key, self.resumed, self.ended = logger, key, resumed, False

    def __getattr__(self, name: str) -> Any:
        if "logger" not in self.__dict__ or self.ended:
            raise AttributeError(name)
        return getattr(self.logger, name)

    @property
    def name(self) -> str | None:
        """The logger's name."""
        return self.attempt(lambda: self.logger.name)

    @property
    def version(self) -> int | str | None:
        """The logger's version; the id of the run where there is a service."""
        return self.attempt(lambda: self.logger.version)

    @property
    def save_dir(self) -> str | None:
        """The logger's folder."""
        return self.attempt(lambda: self.logger.save_dir)

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *arguments: Any, **named: Any) -> None:
        """Begin the logger's run. Some loggers draw a name; the random numbers of the training stay the same."""
        with isolate_rng(include_cuda=False):
            self.attempt(lambda: self.logger.log_hyperparams(params, *arguments, **named))

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log values of a step."""
        self.attempt(lambda: self.logger.log_metrics(dict(metrics), step))

    def after_save_checkpoint(self, checkpoint_callback: ModelCheckpoint) -> None:
        """Let the logger keep the checkpoint."""
        self.attempt(lambda: self.logger.after_save_checkpoint(checkpoint_callback))

    def save(self) -> None:
        """Write what is buffered."""
        self.attempt(self.logger.save)

    def finalize(self, status: str) -> None:
        """End the logger's run, except after a success: the Trainer calls this before the final values are known."""
        if status == "success":
            self.save()
        else:
            self.close(status)

    def close(self, status: str = "success") -> None:
        """End the logger's run."""
        self.attempt(lambda: self.logger.finalize(status))
        if isinstance(service := self.logger, WandbLogger):  # which leaves its run open
            self.attempt(lambda: service.experiment.finish(exit_code=int(status != "success")))
        self.ended = True

    def attempt(self, call: Callable[[], Found]) -> Found | None:
        """The result of a call; None if it raises an error, or an earlier one did."""
        if self.ended:
            return None
        try:
            return call()
        except Exception as error:  # of a service and its network, anything
            self.ended = True
            words = without_password(sanitize(first_line(error)))
            print(f"warning: {self.key}: {words}; nothing more is logged there, training continues", flush=True)
            return None


def without_password(text: str) -> str:
    """Text that may hold an address, without the name and password in it."""
    return re.sub(r"(?<=:)//[^/@\s]*@", "//", text)
