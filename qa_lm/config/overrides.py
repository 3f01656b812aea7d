"""From overrides, as the command line takes them, to a checked configuration: `compose` for notebooks and scripts."""

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
from qa_lm.config.hydra_settings import refuse_code
from qa_lm.config.schema import TrainConfig
from qa_lm.config.trainer_arguments import check_trainer_arguments
from qa_lm.config.validate import check_values
from qa_lm.errors import UserError

_ONE_AT_A_TIME = threading.Lock()  # Hydra keeps plugins and schemas in objects that all threads share


def compose(*overrides: str, config_dir: str | Path | None = None) -> TrainConfig:
    """Compose a configuration from the files of `conf/` and overrides, as `scripts/train.py` does.

    It has no side effects: call it as often as you like, in any thread.

        config = qa_lm.compose("experiment=recall", "data.path=faq.jsonl", "seed=7")

    Args:
        overrides: `group=choice` and `key=value`, as on the command line but without a shell's quotes.
        config_dir: a folder of your own settings files, such as `experiment/mine.yaml`, which are found before those
            of the package.

    Returns:
        All settings, typed and checked. Those that are None are chosen from the pairs when training starts.

    Raises:
        UserError: an override is wrong; the message is the one that the command line would give.
    """
    for override in overrides:
        _check_override(override)
    if config_dir is not None and not Path(config_dir).is_dir():
        raise UserError(f"config_dir={config_dir}: no such folder")
    folders = Folders(conf_folder(), None if config_dir is None else Path(config_dir).absolute())
    words = with_quoted_templates(list(overrides))
    try:
        with _ONE_AT_A_TIME:
            return _composed(words, folders)
    except Exception as error:
        if not is_configuration_error(error):
            raise
        raise UserError(explain(error, folders, words)) from None


def without_hydra(settings: DictConfig) -> tuple[DictConfig, HydraConf]:
    """Composed settings, and Hydra's own, which are taken out of them."""
    with flag_override(settings, ["struct", "readonly"], False):
        return settings, settings.pop("hydra")


def checked(settings: DictConfig, hydra: HydraConf, folders: Folders) -> TrainConfig:
    """Composed settings as plain objects, with values that go together.

    Args:
        settings: without Hydra's own.
        hydra: Hydra's own.
        folders: where they are from, for messages.

    Raises:
        UserError: a defaults list, a key or a value is wrong.
    """
    check_defaults_lists(folders, hydra.runtime.choices)
    config = typed_config(settings)
    if config.trust is not None and not any(each.startswith("trust=") for each in hydra.overrides.task):
        raise UserError("trust: is taken from the command line only: add trust=PACKAGE there", "trust")
    if hydra.job.chdir:
        make_paths_absolute(config, Path(hydra.runtime.cwd))
    check_values(config)
    return config


def checked_copy(config: TrainConfig) -> TrainConfig:
    """A copy of a configuration that was made or changed in Python, after the checks of `compose`.

    Raises:
        UserError: a value is missing, of the wrong type, or not allowed; the message begins with the key.
    """
    try:
        structured = OmegaConf.structured(config)
        if missing := sorted(OmegaConf.missing_keys(structured)):
            hint = "qa_lm.compose() gives a configuration in which all others have one"
            raise UserError(f"{missing[0]} has no value; {hint}", missing[0])
        copy = typed_config(structured)
    except OmegaConfBaseException as error:
        raise UserError(explain(error, Folders(conf_folder()), [])) from None
    check_values(copy)
    check_trainer_arguments(copy.trainer)
    return copy


def _check_override(override: str) -> None:
    if not isinstance(override, str):
        raise UserError(f"{override!r}: give overrides as texts, such as 'seed=7'")
    if override.startswith("-"):
        raise UserError(f"{override}: compose takes settings, such as 'seed=7', and the argument config_dir=FOLDER")
    key = override.partition("=")[0].lstrip("+~")
    if key.startswith(("hydra.", "hydra/")):
        raise UserError(f"{override}: Hydra's own settings have no effect here; train takes folder=FOLDER")
    if key == "resume" and override.partition("=")[2] not in ("auto", "null"):
        raise UserError(f"{override}: to resume a run, compose with resume=auto and give train its folder")


def _composed(words: list[str], folders: Folders) -> TrainConfig:
    register_schema()
    words = hydra_arguments(words)
    words += implied_choices(words, folders.conf)
    settings = refuse_code(folders.conf, [*(["--config-dir", str(folders.own)] if folders.own else []), *words])
    if settings is None:
        swept = [each for each in OverridesParser.create().parse_overrides(words) if each.is_sweep_override()]
        if swept:
            raise UserError(
                f"{swept[0].input_line}: several values; compose makes one configuration, so call it for each value"
            )
        raise UserError(f"{' '.join(words)}: is a sweep; run it by the command train, with -m")
    config = checked(*without_hydra(settings), folders)
    check_trainer_arguments(config.trainer)
    return config
