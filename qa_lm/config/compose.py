"""From composed YAML to the objects of the schema, and the keys of the schema.

Hydra composes the files of `conf/` onto the schema (`register_schema`, before `hydra.main` runs). `typed_config`
converts the result to plain objects.
"""

import difflib
import functools
import itertools
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import yaml
from hydra.conf import HydraConf
from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf, flag_override
from omegaconf.errors import OmegaConfBaseException

from qa_lm.config.aliases import setting_hint
from qa_lm.config.hydra_settings import register_sweep_settings
from qa_lm.config.schema import (
    DataConfig,
    FinetuneConfig,
    ModelConfig,
    OptimizerConfig,
    TokenizerConfig,
    TrainConfig,
)
from qa_lm.config.trainer_arguments import trainer_parameters
from qa_lm.errors import UserError, first_line
from qa_lm.names import BUILTIN_PAIRS

IMPLIED = {"data.path": "file", "data.hub": "hub"}
"""Settings that imply a choice of the group `data`."""


def register_schema() -> None:
    """Register the schema and the resolver `${new_folder:...}` with Hydra."""
    OmegaConf.register_new_resolver("new_folder", new_folder_once, replace=True)
    register_sweep_settings()
    store = ConfigStore.instance()
    schema = OmegaConf.structured(TrainConfig)
    # Without the struct flag, which makes Hydra refuse unknown keys, `optimizer.nesterov=true` needs no `+`.
    # `typed_config` refuses keys that neither the schema nor a class named by `_target_` has.
    for name in ("model", "optimizer", "loggers", "callbacks"):
        OmegaConf.set_struct(schema[name], False)
    store.store(name="train_schema", node=schema)
    store.store(group="data", name="data_schema", node=DataConfig)
    store.store(group="tokenizer", name="tokenizer_schema", node=TokenizerConfig)
    store.store(group="finetune", name="finetune_schema", node=FinetuneConfig)
    store.store(group="model", name="model_schema", node=OmegaConf.structured(ModelConfig, flags={"struct": False}))
    optimizer = OmegaConf.structured(OptimizerConfig, flags={"struct": False})
    store.store(group="optimizer", name="optimizer_schema", node=optimizer)
    store.store(group="trainer", name="trainer_schema", node=OmegaConf.create({}, flags={"struct": False}))


def conf_folder() -> Path:
    """Return the folder that contains train.yaml and the groups.

    Raises:
        FileNotFoundError: the package was installed without this folder.
    """
    package = Path(__file__).resolve().parent.parent
    for folder in (package / "conf", package.parent / "conf"):
        if (folder / "train.yaml").is_file():
            return folder
    raise FileNotFoundError(f"{package / 'conf'}: the settings files are missing; install qa_lm again")


def new_folder(path: str) -> str:
    """Create a new folder of this name, or with a suffix -2, -3, ... if it exists, so that two runs that start in the
    same second get different folders."""
    for number in itertools.count(1):
        folder = Path(path if number == 1 else f"{path}-{number}")
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        return str(folder)
    raise AssertionError


@functools.cache
def new_folder_once(path: str) -> str:
    """Cache `new_folder` for Hydra, which resolves its settings several times and needs the same folder each time.

    Launchers for clusters pickle this function by its name.
    """
    return new_folder(path)


def implied_choices(arguments: list[str], conf: Path) -> list[str]:
    """Return implied choices: `data.path=FILE` implies `data=file`, and `data.hub=NAME` implies `data=hub`.

    There are none with an experiment outside `conf`, which may choose its own data.

    Args:
        arguments: the command line, without the program's name.
        conf: the folder of settings.
    """
    given = dict(argument.partition("=")[::2] for argument in arguments)
    experiment = given.get("experiment")
    if "data" in given or (experiment and not (conf / "experiment" / f"{experiment}.yaml").is_file()):
        return []
    return next(([f"data={choice}"] for key, choice in IMPLIED.items() if key in given), [])


def typed_config(composed: DictConfig) -> TrainConfig:
    """Convert the composed configuration to plain objects. `check_values` then checks the values.

    Raises:
        UserError: a key is unknown (Hydra accepts any key after a `+`) or missing; the message begins with the key.
    """
    composed = _with_extra(composed)
    _check_keys(composed, TrainConfig, "")
    if missing := sorted(OmegaConf.missing_keys(composed)):
        raise UserError(f"{missing[0]} has no value; give one: {missing[0]}=...", missing[0])
    config = OmegaConf.to_object(composed)
    assert isinstance(config, TrainConfig)
    if config.model.path is not None:  # the tokenizer comes with a pretrained model
        config.tokenizer = TokenizerConfig(kind="model", trim=config.tokenizer.trim)
    return config


def _with_extra(composed: DictConfig) -> DictConfig:
    """Move the unknown keys of a node with a `_target_` into its `extra`, the arguments of the class."""
    composed = composed.copy()
    for name, schema in (("model", ModelConfig), ("optimizer", OptimizerConfig)):
        node = composed.get(name)
        if not isinstance(node, DictConfig) or node.get("_target_") is None:
            continue
        known = {each.name for each in fields(schema)}
        further = {str(key): node[key] for key in list(node) if key not in known}
        with flag_override(composed, ["struct", "readonly"], False):
            for key in further:
                del node[key]
            node.extra = {**node.get("extra", {}), **further}
    return composed


def make_paths_absolute(config: TrainConfig, folder: Path) -> None:
    """Make relative paths absolute: with `hydra.job.chdir=true` the working directory of a run changes."""

    def absolute(path: Any) -> Any:
        if isinstance(path, list):
            return [absolute(each) for each in path]
        return path if path in BUILTIN_PAIRS else str(folder / Path(path).expanduser())

    data, tokenizer = config.data, config.tokenizer
    for name in ("path", "validation_path", "test_path"):
        if value := getattr(data, name):
            setattr(data, name, absolute(value))
    if data.cache and data.cache.lower() not in ("off", "false"):
        data.cache = absolute(data.cache)
    if data.hub and (folder / data.hub).is_dir():
        data.hub = absolute(data.hub)
    if tokenizer.path and (folder / tokenizer.path).is_dir():
        tokenizer.path = absolute(tokenizer.path)
    if config.model.path and (folder / Path(config.model.path).expanduser()).exists():
        config.model.path = absolute(config.model.path)


def schema_keys() -> list[str]:
    """Return every key of the schema in dot notation: `seed`, `optimizer`, `optimizer.lr`, ..."""
    return _dotted(TrainConfig, "")


def _dotted(schema: type, prefix: str) -> list[str]:
    keys = []
    for each in fields(schema):
        keys.append(prefix + each.name)
        if is_dataclass(each.type):
            assert isinstance(each.type, type)
            keys += _dotted(each.type, f"{prefix}{each.name}.")
    return keys


def nearest_key(key: str) -> str | None:
    """Return the key of the schema closest to a mistyped one, first at the same level, then at others."""
    if key.startswith("hydra."):
        return next(iter(difflib.get_close_matches(key, _dotted(HydraConf, "hydra."), 1)), None)
    parent, _, leaf = key.rpartition(".")
    siblings: dict[str, str] = {}
    others: dict[str, str] = {}
    for known in (*(f"trainer.{name}" for name in trainer_parameters()), *reversed(schema_keys())):
        known_parent, _, known_leaf = known.rpartition(".")
        (siblings if known_parent == parent else others)[known_leaf] = known
    for candidates, cutoff in ((siblings, 0.6), (others, 0.75)):
        if close := difflib.get_close_matches(leaf, candidates, 1, cutoff):
            return candidates[close[0]]
    if close := difflib.get_close_matches(key, ["hydra"], 1):
        return close[0]
    parents = [known for known in schema_keys() if "." not in known]
    close = difflib.get_close_matches(parent, parents, 1) if parent not in parents else []
    return f"{close[0]}.{leaf}" if close and f"{close[0]}.{leaf}" in schema_keys() else None


def unknown_key(key: str) -> UserError:
    """Return the error for a key that the schema does not have."""
    if hint := setting_hint(key):
        return UserError(f"{key}: no such setting; {hint}", key)
    nearest = nearest_key(key)
    return UserError(f"{key}: no such setting" + (f"; did you mean {nearest}?" if nearest else ""), key)


def _check_keys(composed: DictConfig, schema: type, prefix: str) -> None:
    known = {each.name: each for each in fields(schema)}
    for name in composed:
        if name not in known:
            raise unknown_key(f"{prefix}{name!s}")
    for name, each in known.items():
        if name not in composed:
            raise UserError(f"{prefix}{name}: must not be deleted; give it a value", f"{prefix}{name}")
        if is_dataclass(each.type):
            assert isinstance(each.type, type)
            _check_keys(composed[name], each.type, f"{prefix}{name}.")


def resolved_yaml(config: TrainConfig) -> str:
    """Return the configuration as YAML, with all interpolations resolved."""
    return OmegaConf.to_yaml(OmegaConf.structured(config), resolve=True)


def read_config(path: Path) -> TrainConfig:
    """Read the configuration of a run from its config.yaml.

    The run may come from someone else. An interpolation such as `${oc.env:NAME}` would read the user's environment, and
    YAML aliases can expand beyond all memory. `resolved_yaml` writes neither, so both are refused.

    Raises:
        UserError: the file is missing, damaged, or has another schema.
    """
    try:
        text = path.read_text(encoding="utf-8")
        for event in yaml.parse(text, yaml.SafeLoader):
            line = event.start_mark.line + 1 if event.start_mark else 0
            if isinstance(event, yaml.AliasEvent):
                raise ValueError(f"line {line}: YAML aliases are not allowed")
            if isinstance(event, yaml.ScalarEvent) and "${" in event.value:
                raise ValueError(f"line {line}: interpolations are not allowed: {event.value}")
        loaded = OmegaConf.create(text)
        config = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(TrainConfig), loaded))
    except (OSError, yaml.YAMLError, OmegaConfBaseException, ValueError, TypeError, RecursionError) as error:
        raise UserError(f"{path}: is not a valid configuration of a run: {first_line(error)}") from None
    assert isinstance(config, TrainConfig)
    return config


def with_quoted_templates(arguments: list[str]) -> list[str]:
    """Quote templates such as `data.prompt="{context}\\n{question}"` for Hydra, after the shell has removed its quotes.

    Hydra's grammar would read the braces as a dictionary. Values with quotes, and values that could be several values
    of a sweep, are unchanged.
    """
    sweep = bool({"-m", "--multirun"} & set(arguments))

    def quoted(argument: str) -> str:
        key, _, value = argument.partition("=")
        several = sweep and "," in value
        if key not in ("data.prompt", "data.completion") or "{" not in value or value[0] in "\"'" or several:
            return argument
        return f'{key}="{value}"' if '"' not in value else "{}='{}'".format(key, value.replace("'", "\\'"))

    return [quoted(argument) for argument in arguments]


def data_config(overrides: list[str]) -> DataConfig:
    """Return data settings from overrides such as `data.path=faq.csv`, with the defaults of the schema.

    Raises:
        UserError: an override does not have the form `data.KEY=VALUE`, or its value has the wrong type.
    """
    known = {each.name for each in fields(DataConfig)}
    overrides = with_quoted_templates(overrides)
    for override in overrides:
        key = override.partition("=")[0]
        if "=" not in override or not key.startswith("data."):
            raise UserError(f"{override}: give settings of the data as data.KEY=VALUE, such as data.path=faq.jsonl")
        if key.removeprefix("data.") not in known:
            raise unknown_key(key)
    try:
        given = OmegaConf.from_dotlist(overrides)
        config = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(DataConfig), given.get("data", {})))
    except (yaml.YAMLError, OmegaConfBaseException, ValueError) as error:
        raise UserError(f"{' '.join(overrides)}: {first_line(error)}") from None
    assert isinstance(config, DataConfig)
    return config
