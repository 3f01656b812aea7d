"""The settings of a resumed run: those of the run, with the few changes that are allowed.

Settings that the checkpoint contains (learning rate, patience, ...) and the data cannot change. Such a change is an
error, so that no setting is silently ignored.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from qa_lm.config.arguments import quoted_setting
from qa_lm.config.compose import conf_folder, read_config, schema_keys, unknown_key
from qa_lm.config.enums import ScheduleKind
from qa_lm.config.schema import TrainConfig
from qa_lm.config.targets import TARGET, named_targets, trusted_modules
from qa_lm.errors import UserError, first_line
from qa_lm.run.run_folder import CONFIG

AUTO = "auto"
MAY_CHANGE = {
    *("trainer.max_epochs", "trainer.max_time", "trainer.log_every_n_steps", "trainer.enable_progress_bar"),
    *("trainer.devices", "trainer.num_nodes", "trainer.strategy", "distributed.timeout_seconds"),
    *("checkpoint.every_seconds", "checkpoint.every_steps", "checkpoint.failed_write"),
    *("data.path", "data.validation_path", "data.test_path", "data.cache", "data.workers"),
    *("budget.time", "budget.memory"),
    *("evaluation.max_pairs", "evaluation.batch_size", "evaluation.max_new_tokens"),
    *("export_weights", "name", "tags"),
}
"""Settings that may change when resuming. The files of pairs may have moved; their content is compared."""
REPLACED = ("resume", "trust", "loggers")
"""Settings that come from whoever resumes the run, not from the run."""
Wanted = Iterator[tuple[str, Any]]


def resume_argument(arguments: list[str]) -> Path | None:
    """Return the folder of `resume=FOLDER` on the command line; None without one and for `resume=auto`.

    Raises:
        UserError: the folder holds no run, or several folders are given.
    """
    given = [argument for argument in arguments if argument.startswith("resume=")]
    if not given:
        return None
    try:
        value = OverridesParser.create().parse_override(given[-1]).value()
    except HydraException as error:
        raise UserError(f"{given[-1]}: {first_line(error)}", "resume") from None
    if value is None or value == AUTO:
        return None
    if not isinstance(value, str) or {"-m", "--multirun"} & set(arguments):
        raise UserError(f"{given[-1]}: takes one run folder; to resume a sweep, repeat its command", "resume")
    folder = Path(value).expanduser()
    if not (folder / CONFIG).is_file():
        raise UserError(f"resume: {value} holds no run ({CONFIG} is missing); give the folder that a run printed")
    return folder.resolve()


def run_folder_override(folder: Path) -> str:
    """Return the override that makes Hydra run in the folder, whatever its name contains."""
    return quoted_setting("hydra.run.dir", str(folder))


def resumed_config(folder: Path, composed: TrainConfig, overrides: list[str]) -> TrainConfig:
    """Return the settings of the run in the folder, with the given changes.

    Args:
        folder: the run folder.
        composed: with `resume=auto`, all new settings. Open (null) settings keep what was chosen when the run started.
        overrides: with `resume=FOLDER`, the overrides of the command line.

    Raises:
        UserError: a setting cannot change when resuming; the message begins with the key.
    """
    before_changes = read_config(folder / CONFIG)
    before_changes.data.cache = None  # do not write to a folder that someone else's run names
    before_changes.trust = composed.trust  # only the user who resumes the run can trust packages
    if composed.resume == AUTO or any(_top(each) == "loggers" for each in _parsed(overrides)):
        before_changes.loggers = composed.loggers
    elif "mlflow" in before_changes.loggers and not _has_mlflow_store():
        del before_changes.loggers["mlflow"]
        print("warning: loggers=mlflow: no mlflow.db in this folder; to create one, add loggers=mlflow", flush=True)
    _check_named_classes(folder, before_changes, composed)
    stored: DictConfig = OmegaConf.structured(before_changes)
    for key, value in _all_of(composed) if composed.resume == AUTO else _given(overrides):
        before = OmegaConf.select(stored, key)
        try:
            OmegaConf.update(stored, key, value, force_add=True)
        except (OmegaConfBaseException, ValueError) as error:
            raise UserError(f"{key}={value}: {first_line(error)}", key) from None
        after = OmegaConf.select(stored, key)
        if before != after and key not in MAY_CHANGE:
            raise UserError(
                f"{key}={_text(after)}: cannot change when resuming; {folder} was started with {_text(before)}; "
                "start a new run instead",
                key,
            )
    config = OmegaConf.to_object(stored)
    assert isinstance(config, TrainConfig)
    _warn_about_schedule(before_changes, config)
    config.resume = composed.resume
    return config


def _has_mlflow_store() -> bool:
    """Whether the user stores MLflow runs. Someone else's run must not create a store in the current folder."""
    return "MLFLOW_TRACKING_URI" in os.environ or Path("mlflow.db").is_file() or Path("mlruns").is_dir()


def _check_named_classes(folder: Path, stored: TrainConfig, composed: TrainConfig) -> None:
    """Refuse classes that the run names, unless the user names them too or trusts their package.

    The run may come from someone else. A logger with the arguments of a choice in conf/loggers is allowed.

    Raises:
        UserError: the message says what to add.
    """
    own = list(named_targets(composed))
    for file in (conf_folder() / "loggers").glob("*.yaml"):
        own += [(f"loggers.{name}", node) for name, node in yaml.safe_load(file.read_text(encoding="utf-8")).items()]
    trusted = {module.split(".")[0] for module in trusted_modules(composed.trust)}
    for key, node in named_targets(stored):
        package = str(node.get(TARGET)).split(".")[0]
        if (key, node) not in own and package not in trusted:
            other = ", or choose the loggers: loggers=[tensorboard]" if key.startswith("loggers.") else ""
            raise UserError(
                f"{folder}: this run names a class, {key}.{TARGET}={node.get(TARGET)}, and a run may come from "
                f"someone else; if you trust it, add trust={package}{other}"
            )


def _warn_about_schedule(before: TrainConfig, now: TrainConfig) -> None:
    """Warn that more epochs do not stretch the schedule, which is part of the checkpoint."""
    new, old = now.trainer.get("max_epochs"), before.trainer.get("max_epochs")
    kind, own_end = now.optimizer.schedule, now.optimizer.schedule_epochs
    if new != old and kind is not ScheduleKind.constant and own_end is None:
        print(f"warning: the {kind.value} schedule of the learning rate still ends after epoch {old}", flush=True)


def _parsed(overrides: list[str]) -> list[Override]:
    return OverridesParser.create().parse_overrides(overrides)


def _top(override: Override) -> str:
    return str(override.key_or_group).partition(".")[0]


def _given(overrides: list[str]) -> Wanted:
    """Yield the settings of the command line."""
    for override in _parsed(overrides):
        key = override.key_or_group
        if _top(override) in REPLACED:
            continue
        leaf = key.startswith(("trainer.", "model.extra.", "optimizer.extra.", "callbacks.")) or (
            key in schema_keys() and not any(known.startswith(f"{key}.") for known in schema_keys())
        )
        if not leaf and key not in ("data", "tokenizer", "model", "optimizer", "trainer", "experiment"):
            raise unknown_key(key)
        if not leaf or override.is_delete():
            raise UserError(f"{override.input_line}: when resuming, override single settings (key=value)", key)
        yield key, override.value()


def _all_of(composed: TrainConfig) -> Wanted:
    """Yield every setting that is not open (null)."""
    plain = OmegaConf.to_container(OmegaConf.structured(composed), enum_to_str=True)
    assert isinstance(plain, dict)
    for key, value in _leaves(plain, ""):
        if value is not None and key.partition(".")[0] not in REPLACED:
            yield key, value


def _leaves(node: dict[Any, Any], prefix: str) -> Wanted:
    for name, value in node.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _text(value: Any) -> str:
    return "null" if value is None else str(getattr(value, "value", value))
