"""`compose`: from overrides, as on the command line, to a checked configuration."""

import threading
from pathlib import Path

from hydra.conf import HydraConf
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf, flag_override
from omegaconf.errors import OmegaConfBaseException

from qa_lm.config.arguments import hydra_arguments
from qa_lm.config.compose import (
    conf_folder,
    implied_choices,
    make_paths_absolute,
    register_schema,
    typed_config,
    with_quoted_templates,
)
from qa_lm.config.explain import Folders, check_defaults_lists, explain, is_configuration_error
from qa_lm.config.hydra_settings import composed_settings
from qa_lm.config.schema import TrainConfig
from qa_lm.config.trainer_arguments import check_trainer_arguments
from qa_lm.config.validate import check_values
from qa_lm.errors import UserError

_LOCK = threading.Lock()  # Hydra keeps plugins and schemas in objects that all threads share


def compose(*overrides: str, config_dir: str | Path | None = None) -> TrainConfig:
    """Compose a configuration from the files of `conf/` and overrides, as `scripts/train.py` does.

    It has no side effects: call it as often as you like, in any thread.

        config = qa_lm.compose("experiment=recall", "data.path=faq.jsonl", "seed=7")

    Args:
        overrides: `group=choice` and `key=value`, as on the command line but without a shell's quotes.
        config_dir: a folder of your own settings files, such as `experiment/mine.yaml`. They take precedence over those
            of the package.

    Returns:
        All settings, typed and checked. Settings that are None are chosen from the pairs when training starts.

    Raises:
        UserError: an override is invalid; the message is the same as on the command line.
    """
    for override in overrides:
        _check_override(override)
    if config_dir is not None and not Path(config_dir).is_dir():
        raise UserError(f"config_dir={config_dir}: no such folder")
    folders = Folders(conf_folder(), None if config_dir is None else Path(config_dir).absolute())
    arguments = with_quoted_templates(list(overrides))
    try:
        with _LOCK:
            return _compose(arguments, folders)
    except Exception as error:
        if not is_configuration_error(error):
            raise
        raise UserError(explain(error, folders, arguments)) from None


def without_hydra(settings: DictConfig) -> tuple[DictConfig, HydraConf]:
    """Split composed settings into those of qa_lm and those of Hydra."""
    with flag_override(settings, ["struct", "readonly"], False):
        return settings, settings.pop("hydra")


def checked(settings: DictConfig, hydra: HydraConf, folders: Folders) -> TrainConfig:
    """Convert composed settings to plain objects, and check their values.

    Args:
        settings: settings of qa_lm.
        hydra: settings of Hydra.
        folders: the folders of settings files, for messages.

    Raises:
        UserError: a defaults list, a key or a value is invalid.
    """
    check_defaults_lists(folders, hydra.runtime.choices)
    config = typed_config(settings)
    if config.trust is not None and not any(each.startswith("trust=") for each in hydra.overrides.task):
        raise UserError("trust: allowed on the command line only: add trust=PACKAGE there", "trust")
    if config.model.path is not None:
        _check_tokenizer(hydra.overrides.task)
    if hydra.job.chdir:
        make_paths_absolute(config, Path(hydra.runtime.cwd))
    check_values(config)
    return config


def _check_tokenizer(overrides: list[str]) -> None:
    """Refuse settings of the tokenizer, which comes with a pretrained model, except that it may be trimmed."""
    for override in overrides:
        key = override.lstrip("+~").partition("=")[0]
        if key.partition(".")[0] == "tokenizer" and key != "tokenizer.trim":
            raise UserError(f"{override}: has no effect here: the tokenizer comes with the pretrained model", key)


def checked_copy(config: TrainConfig) -> TrainConfig:
    """Check a configuration that was created or changed in Python, as `compose` does, and return a copy.

    Raises:
        UserError: a value is missing, has the wrong type, or is not allowed; the message begins with the key.
    """
    try:
        structured = OmegaConf.structured(config)
        if missing := sorted(OmegaConf.missing_keys(structured)):
            hint = "qa_lm.compose() returns a configuration with all other values"
            raise UserError(f"{missing[0]} has no value; {hint}", missing[0])
        copy = typed_config(structured)
    except OmegaConfBaseException as error:
        raise UserError(explain(error, Folders(conf_folder()), [])) from None
    check_values(copy)
    check_trainer_arguments(copy.trainer)
    return copy


def _check_override(override: str) -> None:
    if not isinstance(override, str):
        raise UserError(f"{override!r}: overrides must be strings, such as 'seed=7'")
    if override.startswith("-"):
        raise UserError(f"{override}: compose takes settings, such as 'seed=7', and the argument config_dir=FOLDER")
    key = override.partition("=")[0].lstrip("+~")
    if key.startswith(("hydra.", "hydra/")):
        raise UserError(f"{override}: Hydra's own settings are not used here; train takes folder=FOLDER")
    if key == "resume" and override.partition("=")[2] not in ("auto", "null"):
        raise UserError(f"{override}: to resume a run, compose with resume=auto and give train its folder")


def _compose(arguments: list[str], folders: Folders) -> TrainConfig:
    register_schema()
    arguments = hydra_arguments(arguments)
    arguments += implied_choices(arguments, folders.conf)
    settings = composed_settings(
        folders.conf, [*(["--config-dir", str(folders.own)] if folders.own else []), *arguments]
    )
    if settings is None:
        swept = [each for each in OverridesParser.create().parse_overrides(arguments) if each.is_sweep_override()]
        if swept:
            raise UserError(
                f"{swept[0].input_line}: several values; compose returns one configuration, so call it for each value"
            )
        raise UserError(f"{' '.join(arguments)}: this is a sweep; run it with the command train and -m")
    config = checked(*without_hydra(settings), folders)
    check_trainer_arguments(config.trainer)
    return config
