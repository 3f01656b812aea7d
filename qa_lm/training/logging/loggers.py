"""The loggers of a run, which `loggers.NAME._target_` names, and what they are given at its start and end.

All classes except `EventsLogger` are other people's and are guarded. A resumed run continues under the id by which a
service (Weights & Biases, MLflow) knows it: the run folder's loggers.json keeps it.
"""

import json
import logging
import math
import os
import re
from collections.abc import Mapping, Sequence
from configparser import RawConfigParser
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.loggers import Logger, MLFlowLogger, WandbLogger
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from qa_lm.config.enums import FailedWriteChoice
from qa_lm.config.schema import TrainConfig
from qa_lm.config.targets import TARGET, class_of, instantiate
from qa_lm.errors import UserError
from qa_lm.evaluation.evaluate import EvaluatedPair
from qa_lm.run.atomic import write_json
from qa_lm.run.run_folder import CHECKPOINTS, LOGGERS
from qa_lm.training.early_checks import check_loggers
from qa_lm.training.logging.guarded import GuardedLogger, without_password
from qa_lm.training.logging.tensorboard import END, FINAL, EventsLogger

ID = re.compile(r"[0-9a-z]{8,64}")
"""The id of a run in a service."""
ENVIRONMENT = {
    # mlflow would try for four minutes to reach a server that is gone.
    **{"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "20"},
    **{"WANDB_INIT_TIMEOUT": "30", "WANDB_FINISH_TIMEOUT": "30"},
    # Both would report errors and use to their makers.
    **{"MLFLOW_DISABLE_TELEMETRY": "true", "WANDB_ERROR_REPORTING": "false"},
    # The run's own output is left alone, and no code is copied.
    **{"WANDB_SILENT": "true", "WANDB_CONSOLE": "off", "WANDB_DISABLE_GIT": "true", "WANDB_DISABLE_CODE": "true"},
}
"""Set where the user has not."""
HARMLESS_SETTINGS = {"mode", "disabled", "project"}
"""What `wandb offline` leaves in wandb/settings of the current folder."""


def build_loggers(config: TrainConfig, folder: Path, begin: int | None, own: Sequence[Logger] = ()) -> list[Logger]:
    """The loggers of the settings and the user's own, with the arguments that only a run knows; nothing is logged yet.

    Args:
        config: all settings.
        folder: the run folder.
        begin: the step at which a run resumes; None for one that begins.
        own: loggers that are given from Python.

    Raises:
        UserError: a class or an argument is wrong, or something in the folder would lead a logger elsewhere.
    """
    check_loggers(config)
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    ids, loggers = _known_ids(folder), list[Logger]()
    title = config.name or "/".join(folder.absolute().parts[-2:])
    go_on = config.checkpoint.failed_write is FailedWriteChoice.go_on
    for name, node in config.loggers.items():
        key, given = f"loggers.{name}", {str(argument): value for argument, value in node.items()}
        found = class_of(node[TARGET], Logger, key, config.trust)
        if not issubclass(found, EventsLogger):
            _refuse_links(folder)
        if issubclass(found, WandbLogger):
            refuse_settings(Path.cwd(), folder)
            given = {"name": title, "tags": config.tags, "id": ids.get(name)} | _offline_without_key() | given
        elif issubclass(found, MLFlowLogger):
            tags = {"tags": {"tags": ", ".join(config.tags)}} if config.tags else {}
            given = _mlflow_arguments(given, ids.get(name)) | tags | given
        try:
            logger = instantiate(
                given, Logger, key, config.trust, save_dir=folder, run_name=title, begin=begin, go_on=go_on
            )
        except UserError as error:
            raise UserError(without_password(str(error)), error.key) from None
        loggers.append(_guarded(logger, key, given.get("run_id") is not None))
    return [*loggers, *(_guarded(logger, type(logger).__name__) for logger in own)]


def log_begin(trainer: pl.Trainer, folder: Path, compared: dict[str, Any], all_settings: dict[str, Any]) -> None:
    """Give the loggers the settings, so that a run that fails has its row on the HParams page, too.

    Args:
        trainer: with the loggers.
        folder: the run folder, which keeps the ids by which services know the run.
        compared: the settings that the HParams page shows.
        all_settings: what other loggers keep.
    """
    ids = _known_ids(folder)
    for logger in trainer.loggers:
        if isinstance(logger, EventsLogger):
            logger.log_start(compared)
        elif not (isinstance(logger, GuardedLogger) and logger.resumed):  # MLflow takes no other settings later
            logger.log_hyperparams(all_settings)
        logger.save()
        if isinstance(logger, GuardedLogger) and isinstance(logger.logger, WandbLogger | MLFlowLogger):
            _begin_service(logger, ids)
    if ids and trainer.is_global_zero:
        write_json(folder / LOGGERS, ids)


def log_end(trainer: pl.Trainer, metrics: dict[str, Any], answers: list[EvaluatedPair], board: dict[str, Any]) -> None:
    """Log the final values, the results table and sample answers, and end the loggers."""
    values = {f"{END}{name}": float(metrics[name]) for name in FINAL if metrics[name] is not None}
    for logger in trainer.loggers:
        if isinstance(logger, EventsLogger):
            logger.log_texts(answers, board, trainer.global_step)
        logger.log_metrics(values, trainer.global_step)
        if isinstance(logger, EventsLogger | GuardedLogger):
            logger.close()


def log_values(trainer: pl.Trainer, values: Mapping[str, float]) -> None:
    """Give values of the current step to all loggers; those that are not finite, such as a mean of nothing, to none."""
    finite = {name: value for name, value in values.items() if math.isfinite(value)}
    for logger in trainer.loggers if finite else []:
        logger.log_metrics(finite, step=trainer.global_step)


def refuse_settings(*folders: Path) -> None:
    """Refuse a file from which wandb would take the server that is handed the user's key, or a proxy: it reads one in
    the current folder, which may be someone else's run.

    Raises:
        UserError: says what the file sets.
    """
    for path in (folder / name / "settings" for folder in folders for name in ("wandb", ".wandb")):
        found = RawConfigParser(strict=False)
        found.read(path, encoding="utf-8")
        names = {name for section in (*found.sections(), found.default_section) for name in found[section]}
        if more := sorted(names - HARMLESS_SETTINGS):
            raise UserError(
                f"{path}: sets {', '.join(more)}, which only the environment (WANDB_*) may; remove the file"
            )


def _guarded(logger: Logger, key: str, resumed: bool = False) -> Logger:
    return logger if isinstance(logger, EventsLogger) else GuardedLogger(logger, key, resumed)


@rank_zero_only
def _begin_service(logger: GuardedLogger, ids: dict[str, str]) -> None:
    """Add the id by which the service knows the run; print where to find it."""
    service, number = logger.logger, logger.version
    if isinstance(service, WandbLogger) and not logger.ended and not service.experiment.disabled:
        run = service.experiment
        print(f"wandb: {run.url or f'offline; to upload it: wandb sync {run.settings.sync_dir}'}", flush=True)
    if isinstance(number, str):
        ids[logger.key.removeprefix("loggers.")] = number


def _known_ids(folder: Path) -> dict[str, str]:
    """The name of a logger to the id by which its service knows the run; what has not the form of an id is left out."""
    path = folder / LOGGERS
    try:
        found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() and not path.is_symlink() else {}
    except (OSError, ValueError, RecursionError):
        return {}
    items = found.items() if isinstance(found, dict) else ()
    return {name: number for name, number in items if isinstance(number, str) and ID.fullmatch(number)}


def _refuse_links(folder: Path) -> None:
    """Refuse links by which a logger would write outside the run folder: someone else's run may hold one."""
    for path in folder.rglob("*"):
        within = path.relative_to(folder).parts
        if not path.is_symlink() or within[0] == CHECKPOINTS or within[0] == "wandb" != path.name:
            continue  # wandb links its own logs, in a new folder for each process
        if not path.resolve().is_relative_to(folder.resolve()):
            raise UserError(f"{path}: links to outside the run folder, where a logger may write; remove it")


def _offline_without_key() -> dict[str, str]:
    """Without a key, wandb would ask for one."""
    import requests
    import wandb

    own = wandb.setup().settings
    key = own.api_key or own.identity_token_file or requests.utils.get_netrc_auth(own.base_url)
    return {} if key or own.mode != "online" else {"mode": "offline"}


def _mlflow_arguments(given: dict[str, Any], known: str | None) -> dict[str, Any]:
    """The address of the store, and the id of the run unless the store does not have it."""
    import mlflow

    for name in ("mlflow", "lightning.pytorch.loggers.mlflow", "urllib3.connectionpool"):
        logging.getLogger(name).setLevel(logging.ERROR)  # "Experiment not found", "Retrying"
    address = given.get("tracking_uri") or mlflow.get_tracking_uri()
    try:
        if known:
            mlflow.MlflowClient(address).get_run(known)
    except Exception as error:  # of a service and its network, anything: the logger will report it
        known = None if getattr(error, "error_code", "") == "RESOURCE_DOES_NOT_EXIST" else known
    return {"tracking_uri": address, "run_id": known}
