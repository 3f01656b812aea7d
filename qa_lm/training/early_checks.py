"""Checks before torch and Lightning are imported, which takes seconds, so that mistakes are reported immediately."""

import importlib.util
from pathlib import Path

from qa_lm.config.schema import TrainConfig
from qa_lm.config.trainer_arguments import check_trainer_arguments
from qa_lm.data.readers.files import check_files_exist
from qa_lm.errors import UserError


def check_early(config: TrainConfig) -> None:
    """Refuse invalid arguments of the Trainer, missing files, and packages that are not installed.

    Raises:
        UserError: the message begins with the setting or the file.
    """
    check_trainer_arguments(config.trainer)
    data, tokenizer = config.data, config.tokenizer
    for name in ("path", "validation_path", "test_path"):
        if patterns := getattr(data, name):
            check_files_exist(patterns, f"data.{name}")
    if tokenizer.kind == "folder" and not Path(tokenizer.path or "").is_dir():
        raise UserError(f"tokenizer.path={tokenizer.path}: no such folder", "tokenizer.path")
    if data.hub is not None:
        check_installed("datasets", f"data.hub={data.hub}", ".venv/bin/pip install datasets", "data.hub")
    check_logger(config.logger.kind)


def check_logger(kind: str) -> None:
    """Refuse a logger whose package is not installed.

    Raises:
        UserError: says how to install it.
    """
    if kind in ("wandb", "mlflow"):
        check_installed(kind, f"logger={kind}", f'pip install -e ".[{kind}]"', "logger")


def check_installed(package: str, setting: str, command: str, key: str) -> None:
    """Refuse a setting that needs a package which is not installed.

    Raises:
        UserError: says how to install it.
    """
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:  # without an origin it is a mere folder of that name, such as wandb makes
        raise UserError(f"{setting}: needs the package {package}: {command}", key)
