"""Loggers beside TensorBoard, by Lightning's own classes: Weights & Biases, MLflow, a CSV file.

- Where they send to is for the user's environment to say (WANDB_*, MLFLOW_TRACKING_URI), never for a setting: settings
  may come from someone else's run folder, and so may a file of wandb's in the current folder.
- Whatever goes wrong in them is told in a line, and training goes on without them.
- `logger.jsonl` in the run folder keeps all that was logged and the name by which a service knows the run. A run that
  is gone on with goes on under that name, and what the service has is not logged again. A file, or a run of wandb's
  that is offline, cannot be added to: it is written anew, all of it.
"""

import logging
import math
import os
import re
import shutil
from argparse import Namespace
from collections.abc import Callable, Mapping
from configparser import RawConfigParser
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import lightning.pytorch as pl
from filelock import FileLock
from lightning.pytorch.loggers import CSVLogger, Logger, MLFlowLogger, WandbLogger
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from lightning.pytorch.utilities.seed import isolate_rng

from qa_lm.config.schema import LoggerConfig
from qa_lm.errors import first_line, sanitize
from qa_lm.training.early_checks import check_logger
from qa_lm.training.logging.logged import LOGGED, append_record, read_record

PATIENCE = 30.0
"""Seconds that wandb may wait for a network that is not there."""
ENVIRONMENT = {
    # mlflow would try for four minutes to reach a server that is gone.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    # Both would tell their makers of errors and of use.
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "WANDB_ERROR_REPORTING": "false",
    # It would say which files it reads, before it looks at its settings.
    "WANDB_SILENT": "true",
}
"""Set where the user has not."""

HARMLESS_SETTINGS = {"mode", "disabled", "project"}
"""What `wandb offline` leaves in wandb/settings of the current folder; the project is given anyway."""


class Opened(NamedTuple):
    """A logger that is ready."""

    logger: Logger
    id: str
    """How the service knows the run; empty if it does not."""
    lasting: bool
    """Whether the service keeps what it has been given, and takes more in another process."""
    words: str
    """Where it all goes, for people."""


class SecondLogger(Logger):
    """One of Lightning's loggers that cannot end a run.

    Args:
        config: which one.
        folder: the run folder.

    Raises:
        UserError: its package is not installed.
    """

    def __init__(self, config: LoggerConfig, folder: Path) -> None:
        super().__init__()
        check_logger(config.kind)
        self.kind, self.project, self.folder = config.kind, config.project, folder
        self.title = "/".join(folder.absolute().parts[-2:])
        """The run's name, for people: its day and time, or its sweep and what distinguishes the job."""
        self.ended = False
        self._logger: Logger | None = None
        self._newest: dict[str, int] = {}  # tag to the step of its newest value that was logged

    @property
    def name(self) -> str:
        """The project."""
        return self.project

    @property
    def version(self) -> str:
        """The run's name."""
        return self.title

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *arguments: Any, **named: Any) -> None:
        """Begin, or go on with what an earlier process has begun."""
        with isolate_rng(include_cuda=False):  # names are drawn
            self.attempt(lambda: self._begin(vars(params) if isinstance(params, Namespace) else params))

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log what was not logged before the run was interrupted."""
        assert step is not None
        new = {tag: float(value) for tag, value in metrics.items() if self._newest.get(tag, -1) < step}
        if new and self._logger:
            self.attempt(lambda: self._log(step, new))

    @rank_zero_only
    def end(self, values: dict[str, float], step: int) -> None:
        """Log the final values and say that the run is over."""
        self.log_metrics(values, step)
        self.attempt(lambda: self._close("success"))

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Nothing, where training went well: the Trainer calls this before the final values are known."""
        if status != "success":
            self.attempt(lambda: self._close(status))

    def attempt(self, call: Callable[[], None]) -> None:
        """Do something, unless something has failed before."""
        if self.ended:
            return
        try:
            call()
        except Exception as error:  # of a service and its network, anything
            self.ended = True
            words = without_password(sanitize(first_line(error)))
            print(f"warning: logger={self.kind}: {words}; nothing more is logged there, training goes on", flush=True)

    def _begin(self, hyperparameters: dict[str, Any]) -> None:
        path = self.folder / LOGGED
        before = read_record(path)
        known, keeps = before.known.get((self.kind, self.project), (None, False))
        opened = {"csv": self._csv, "wandb": self._wandb, "mlflow": self._mlflow}[self.kind](known)
        again = not (opened.lasting and keeps and opened.id == known)
        if again or self.kind != "mlflow":  # there, settings cannot change any more
            opened.logger.log_hyperparams(hyperparameters)
        for step, values in before.rows:
            self._newest |= dict.fromkeys(values, step)
            if again:
                opened.logger.log_metrics(values, step)
        opened.logger.save()
        append_record(path, {"kind": self.kind, "project": self.project, "id": opened.id, "lasting": opened.lasting})
        self._logger = opened.logger
        if opened.words:
            print(f"{self.kind}: {opened.words}", flush=True)

    def _log(self, step: int, values: dict[str, float]) -> None:
        assert self._logger
        self._logger.log_metrics(values, step)
        self._logger.save()
        append_record(self.folder / LOGGED, {"step": step, "values": values})
        self._newest |= dict.fromkeys(values, step)

    def _close(self, status: str) -> None:
        opened, self._logger = self._logger, None
        if isinstance(opened, WandbLogger):
            opened.experiment.finish(exit_code=int(status != "success"))
        elif opened:
            opened.finalize(status)

    def _csv(self, known: str | None) -> Opened:
        home = self.folder / "csv"
        if home.exists() or home.is_symlink():
            shutil.rmtree(home)  # refuses a link, which someone else's run may hold
        return Opened(CSVLogger(self.folder, name=home.name, version=""), "", False, "")

    def _wandb(self, known: str | None) -> Opened:
        import wandb

        if (self.folder / "wandb").is_symlink():  # someone else's run may hold one
            raise OSError(f"{self.folder / 'wandb'}: is a link")
        refuse_settings(Path.cwd(), self.folder)
        settings = wandb.Settings(
            silent=True,
            console="off",  # the run's own output is left alone
            disable_git=True,  # which would copy changes that are not committed
            save_code=False,
            use_dot_wandb=False,
            init_timeout=PATIENCE,
            finish_timeout=PATIENCE,
        )
        own = wandb.setup(settings).settings
        online = own.mode == "online" and _has_key(own)
        number = known or uuid4().hex

        def opened(mode: str) -> WandbLogger:
            logger = WandbLogger(
                name=self.title, save_dir=self.folder, project=self.project, id=number, settings=settings, mode=mode
            )
            assert logger.experiment  # which begins
            return logger

        failure = ""
        if online:
            try:
                logger = opened("online")
                return Opened(logger, number, True, str(logger.experiment.url))
            except Exception as error:
                failure = f"{without_password(sanitize(first_line(error)))}; "
                wandb.teardown()
                wandb.setup(settings)
        logger = opened("offline" if own.mode == "online" else own.mode)
        if own.mode == "disabled":
            return Opened(logger, number, False, "disabled by its own mode, nothing is kept")
        place = Path(logger.experiment.settings.sync_dir)
        return Opened(logger, number, False, f"{failure}offline; to upload it: wandb sync '{place}'")

    def _mlflow(self, known: str | None) -> Opened:
        import mlflow
        from mlflow.exceptions import MlflowException

        logging.getLogger("mlflow").setLevel(logging.WARNING)
        for name in (
            "lightning.pytorch.loggers.mlflow",
            "urllib3.connectionpool",
        ):  # "Experiment not found", "Retrying"
            logging.getLogger(name).setLevel(logging.ERROR)
        place = mlflow.get_tracking_uri()
        file = Path(place.removeprefix("sqlite:///"))
        # Two jobs of a sweep that make the tables of a new file at once spoil it for one of them.
        with FileLock(file.with_name(f".{file.name}.lock")) if place.startswith("sqlite:///") else nullcontext():
            logger = MLFlowLogger(self.project, self.title, place, run_id=known)
            try:
                number = logger.run_id
            except MlflowException as error:
                if known is None or error.error_code != "RESOURCE_DOES_NOT_EXIST":
                    raise
                logger = MLFlowLogger(self.project, self.title, place)  # another store
                number = logger.run_id
        assert number
        logger.experiment.update_run(number, status="RUNNING")
        return Opened(logger, number, True, f"{self.title} in {self.project}, {without_password(place)}")


def log_values(trainer: pl.Trainer, values: Mapping[str, float]) -> None:
    """Give values of the current step to all loggers; those that are not finite, such as a mean of nothing, to none."""
    finite = {name: value for name, value in values.items() if math.isfinite(value)}
    for logger in trainer.loggers if finite else []:
        logger.log_metrics(finite, step=trainer.global_step)


def second_logger(config: LoggerConfig, folder: Path) -> list[Logger]:
    """The logger beside TensorBoard, in a list of its own; an empty list for none.

    Raises:
        UserError: its package is not installed.
    """
    if config.kind == "tensorboard":
        return []
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    return [SecondLogger(config, folder)]


def without_password(text: str) -> str:
    """Text that may hold an address, without the name and password in it."""
    return re.sub(r"(?<=:)//[^/@\s]*@", "//", text)


def refuse_settings(*folders: Path) -> None:
    """Raise for a file from which wandb would take the server that is handed the user's key, or a proxy; it looks for
    one in the current folder, which may be someone else's run."""
    for path in (folder / name / "settings" for folder in folders for name in ("wandb", ".wandb")):
        if not path.is_file():
            continue
        found = RawConfigParser(strict=False)
        found.read(path, encoding="utf-8")
        names = {name for section in (*found.sections(), found.default_section) for name in found[section]}
        if more := sorted(names - HARMLESS_SETTINGS):
            raise OSError(f"{path} sets {', '.join(more)}; only the environment (WANDB_*) may")


def _has_key(settings: Any) -> bool:
    """Whether wandb finds a key for its server, as `wandb login` leaves one; else it would ask for one."""
    import requests

    given = settings.api_key or settings.identity_token_file
    return bool(given or requests.utils.get_netrc_auth(settings.base_url))
