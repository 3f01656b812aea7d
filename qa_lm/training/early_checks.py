"""Checks before torch and Lightning are imported, which takes seconds, so that mistakes are reported immediately."""

import importlib.util
from pathlib import Path

from qa_lm.config.enums import MODEL_AS_ENCODER
from qa_lm.config.schema import TrainConfig
from qa_lm.config.targets import TARGET, import_trusted
from qa_lm.config.trainer_arguments import check_trainer_arguments
from qa_lm.data.pretrained.place import check_place
from qa_lm.data.readers.reading import file_sources
from qa_lm.data.splits.registry import check_split
from qa_lm.data.vocabulary.trimming import check_trimmable_folder
from qa_lm.errors import UserError
from qa_lm.retrieval.encoder import check_encoder

PACKAGES = {"WandbLogger": "wandb", "MLFlowLogger": "mlflow"}
"""The package that a class of Lightning's needs; named like the extra of pyproject.toml."""


def check_early(config: TrainConfig) -> None:
    """Import the trusted packages. Refuse invalid arguments of the Trainer, missing files, unknown splits, invalid
    encoders, and packages that are not installed.

    Raises:
        UserError: the message begins with the setting or the file.
    """
    import_trusted(config.trust)
    check_trainer_arguments(config.trainer)
    check_split(config.data.split)
    if config.evaluation.encoder not in (None, MODEL_AS_ENCODER):
        check_encoder(config.evaluation.encoder)
    if config.model.path is not None:
        check_place(config.model.path, config.model.revision)
    data, tokenizer = config.data, config.tokenizer
    for name in ("path", "validation_path", "test_path"):
        if patterns := getattr(data, name):
            file_sources(patterns, f"data.{name}")
    if tokenizer.kind == "folder" and not Path(tokenizer.path or "").is_dir():
        raise UserError(f"tokenizer.path={tokenizer.path}: no such folder", "tokenizer.path")
    if tokenizer.trim is not None and (place := config.model.path or tokenizer.path):
        check_trimmable_folder(Path(place).expanduser())
    if data.hub is not None:
        check_installed("datasets", f"data.hub={data.hub}", ".venv/bin/pip install datasets", "data.hub")
    check_loggers(config)


def check_loggers(config: TrainConfig) -> None:
    """Refuse loggers whose package is not installed.

    Raises:
        UserError: says how to install it.
    """
    for name, node in config.loggers.items():
        if package := PACKAGES.get(node[TARGET].rpartition(".")[2]):
            check_installed(package, f"loggers.{name}", f'pip install -e ".[{package}]"', f"loggers.{name}")


def check_installed(package: str, setting: str, command: str, key: str) -> None:
    """Refuse a setting that needs a package which is not installed.

    Raises:
        UserError: says how to install it.
    """
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:  # without an origin it is a mere folder of that name, such as wandb makes
        raise UserError(f"{setting}: needs the package {package}: {command}", key)
