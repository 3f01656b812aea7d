"""Every shipped file composes; every mistake is answered with its key before any work."""

import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra import compose, initialize_config_dir
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger

from qa_lm.config.compose import register_schema, schema_keys, typed_config
from qa_lm.config.explain import Folders, check_defaults_lists, explain, is_configuration_error
from qa_lm.config.schema import TrainConfig
from qa_lm.config.targets import check_arguments, class_of, instantiate
from qa_lm.config.trainer_arguments import check_trainer_arguments
from qa_lm.config.validate import check_values
from qa_lm.errors import UserError
from qa_lm.training.logging.hyperparameters import flat_hyperparameters
from tests.conftest import ROOT

CONF = ROOT / "conf"
FILES = sorted(file.relative_to(CONF).as_posix() for file in CONF.rglob("*.yaml"))
# What a choice needs beside itself.
COMPANIONS = {
    "experiment/finetune.yaml": ["data.path=x.jsonl", "model.path=base"],
    "goal/held_out.yaml": ["model=pretrained", "model.path=base"],
    "model/pretrained.yaml": ["model.path=base"],
    "finetune/full.yaml": ["model=pretrained", "model.path=base"],
    "finetune/lora.yaml": ["model=pretrained", "model.path=base"],
    "data/file.yaml": ["data.path=x.jsonl"],
    "data/hub.yaml": ["data.hub=x"],
    "experiment/recall.yaml": ["data.path=x.jsonl"],
    "sweep/recall_recipe.yaml": ["data.path=x.jsonl"],
    "tokenizer/folder.yaml": ["tokenizer.path=x"],
    "tokenizer/hub.yaml": ["tokenizer.path=x"],
}

register_schema()


def load(overrides: list[str], conf: Path = CONF) -> TrainConfig:
    """The way of scripts/train.py from a command line to a configuration, and the Trainer's check."""
    with initialize_config_dir(str(conf), version_base="1.3"):
        composed = compose("train", overrides, return_hydra_config=True)
    check_defaults_lists(Folders(conf), composed.hydra.runtime.choices)
    del composed._content["hydra"]  # type: ignore[union-attr]
    config = typed_config(composed)
    check_values(config)
    check_trainer_arguments(config.trainer)
    for name, node in config.callbacks.items():
        instantiate(node, Callback, f"callbacks.{name}", None)
    for name, node in config.loggers.items():  # not built: their packages may be missing
        found = class_of(node["_target_"], Logger, f"loggers.{name}", None)
        check_arguments(found, [*(each for each in node if each != "_target_"), "save_dir"], f"loggers.{name}")
    return config


def overrides_for(file: str) -> list[str]:
    group, _, name = file.removesuffix(".yaml").rpartition("/")
    return [*([f"{group}={name}"] if group else []), *COMPANIONS.get(file, [])]


def message_for(overrides: list[str], conf: Path = CONF) -> str:
    with pytest.raises(Exception) as caught:  # noqa: PT011
        load(overrides, conf)
    assert is_configuration_error(caught.value), caught.value
    return explain(caught.value, Folders(conf), overrides)


@pytest.mark.parametrize("file", FILES)
def test_every_file_composes(file):
    assert load(overrides_for(file)).seed == 42


def test_the_default_run_is_the_tutorial():
    default = load([])
    assert default == load(["experiment=tutorial"]) == load(["model=small", "trainer.max_epochs=10"])
    assert (default.model.hidden_size, default.model.layers, default.model.heads) == (768, 12, 12)
    assert (default.data.batch_size, default.optimizer.lr, default.early_stopping.patience) == (1, 5e-5, 5)
    assert default.trainer["max_epochs"] == 10


def paths(node: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for key, value in node.items() if isinstance(node, dict) else ():
        yield (*path, key)
        yield from paths(value, (*path, key))


KEYS = [
    (file, path)
    for file in FILES
    for path in paths(yaml.safe_load((CONF / file).read_text()))
    if path[:3] != ("hydra", "sweeper", "params")  # tests/sweeps/test_sweep_files.py
    and not (file.startswith(("callbacks/", "loggers/")) and len(path) == 1)  # a name of one's own
]
ENTRIES = [
    (file, number)
    for file in FILES
    for number in range(len((yaml.safe_load((CONF / file).read_text()) or {}).get("defaults", [])))
]


def thinned(cases: list[Any], every: int) -> list[Any]:
    """One of so many; the rest are slow."""
    return [
        pytest.param(*case, marks=pytest.mark.slow if number % every else (), id="-".join(map(str, case)))
        for number, case in enumerate(cases)
    ]


@pytest.mark.parametrize(("file", "path"), thinned([(file, ".".join(path)) for file, path in KEYS], 3))
def test_a_typo_at_any_level_of_any_file_names_key_and_file(tmp_path, file, path):
    conf, path = tmp_path / "conf", path.split(".")
    shutil.copytree(CONF, conf)
    text = (conf / file).read_text()
    indent = " " * 2 * (len(path) - 1)
    mistyped = path[-1] + "x"
    changed = re.sub(rf"^{indent}{path[-1]}:", f"{indent}{mistyped}:", text, count=1, flags=re.MULTILINE)
    assert changed != text
    (conf / file).write_text(changed)
    message = message_for(overrides_for(file), conf)
    assert mistyped in message
    assert f"conf/{file}" in message
    if path != ["defaults"]:
        assert path[-1] in message.replace(mistyped, ""), message  # did you mean


@pytest.mark.parametrize(("file", "number"), ENTRIES)
def test_a_typo_in_any_defaults_list_is_refused(tmp_path, file, number):
    conf = tmp_path / "conf"
    shutil.copytree(CONF, conf)
    content = yaml.safe_load((conf / file).read_text())
    header = "# @package _global_\n" if "@package _global_" in (conf / file).read_text() else ""
    entry = content["defaults"][number]
    mistakes: list[Any] = [entry + "x"] if isinstance(entry, str) else []
    for group, choice in entry.items() if isinstance(entry, dict) else ():
        mistyped = [f"{each}x" for each in choice or ["x"]] if isinstance(choice, list) else f"{choice}x"
        mistakes += [{f"{group}x": choice or "x"}, {group: mistyped}]
        if "override" in group:
            mistakes.append({group.replace("override", "overide"): choice})
    for mistake in mistakes:
        content["defaults"][number] = mistake
        (conf / file).write_text(header + yaml.safe_dump(content, sort_keys=False))
        assert f"conf/{file}" in message_for(overrides_for(file), conf), mistake


SETTINGS = [key for key in schema_keys() if key not in ("trainer", "model.extra")]


@pytest.mark.parametrize(("key", "plus"), thinned([(key, plus) for key in SETTINGS for plus in ("", "+")], 3))
def test_a_typo_of_any_key_on_the_command_line(key, plus):
    assert message_for([f"{plus}{key}x=1"]) == f"{key}x: no such setting; did you mean {key}?"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "model=smal",
            "model=smal: no such choice; did you mean small? Choices: fitted, medium, pretrained, small, tiny.",
        ),
        ("modle=small", "modle: no such setting; did you mean model?"),
        ("lr=3", "lr: no such setting; did you mean optimizer.lr?"),
        ("trainer.max_epoch=3", "trainer.max_epoch: .* no argument max_epoch; did you mean trainer.max_epochs?"),
        ("trainer.max_epochs=ten", "trainer.max_epochs=ten: must be an integer or null"),
        ("trainer.callbacks=[]", "trainer.callbacks: cannot be set"),
        ("optimizer=3", "optimizer=3: no such choice. Choices: adamw, muon."),
        ("optimizer.lr=abc", "optimizer.lr: Value 'abc' .* could not be converted to Float"),
        ("optimizer.lr=-1", "optimizer.lr=-1.0: must be above 0"),
        ("optimizer.lr=nan", "optimizer.lr=nan: must be above 0"),
        ("optimizer.betas=[0.9]", "optimizer.betas"),
        ("data.batch_size=2.5", "data.batch_size: Value '2.5'"),
        ("data.batch_size=0", "data.batch_size=0: must be at least 1"),
        ("data.augment=1.5", "data.augment=1.5: must be from 0 to 1"),
        ("data.augment=-0.1", "data.augment=-0.1: must be from 0 to 1"),
        ("data.train_fraction=1.5", "data.train_fraction=1.5: must be above 0 and at most 1"),
        ("loss_weighting=pairs", "loss_weighting: Invalid value 'pairs', expected one of"),
        ("monitor=val/los", "monitor=val/los: did you mean val/loss?"),
        ("monitor=val/exact_match", "monitor_mode=min: must be max"),
        ("model.heads=7", "model.heads=7: must divide model.hidden_size = 768"),
        ("seed=-1", "seed=-1: must be from 0"),
        ("~seed", "seed: must not be deleted"),
        ("seed=[1", "cannot read 'seed=.1'"),
        ("data.shuffle=${sed}", "data.shuffle: Interpolation key 'sed' not found"),
        ("data=file", "data.path: name the file of pairs"),
        ("data=hub", "data.path: name the file of pairs, such as data.path=pairs.jsonl, or a data set of the hub"),
        ("tokenizer.vocab_size=9", None),
        ("tokenizer.path=x", "tokenizer.path=x: has no effect here: choose tokenizer=folder"),
        ("data.hub_subset=x", "data.hub_subset=x: has no effect here: it belongs to data.hub"),
        ("data.hub_split=test", "data.hub_split=test: has no effect here: it belongs to data.hub"),
        ("data.held_out_phrasings=2", "data.held_out_phrasings=2: has no effect here: it belongs to data.split="),
        ("data.split_seed=4294967296", "data.split_seed=4294967296: must be from 0"),
        (
            "data.prompt=question",
            "data.prompt=question: it names no column in braces; write columns as in '{question}'",
        ),
        ("data.completion=none", "data.completion=none: it names no column in braces; write columns as in ' {answer}'"),
        ("hydra.run.dirr=x", "hydra.run.dirr: no such setting; did you mean hydra.run.dir?"),
    ],
)
def test_mistakes_on_the_command_line(override, message):
    if message is None:  # a value that the chosen kind does not look at
        load([override])
    else:
        told = message_for([override])
        assert re.match(message.replace("?", r"\?"), told)
        assert len(told.splitlines()) <= 2


def test_a_wrong_value_in_a_file_names_the_file(tmp_path):
    conf = tmp_path / "conf"
    shutil.copytree(CONF, conf)
    small = conf / "model" / "small.yaml"
    small.write_text(small.read_text().replace("heads: 12", "heads: 7"))
    assert message_for([], conf) == "conf/model/small.yaml: model.heads=7: must divide model.hidden_size = 768"
    small.write_text(small.read_text().replace("heads: 7", "heads: [7"))
    assert re.match(r"conf/model/small.yaml:\d+: not YAML", message_for([], conf))


def test_any_argument_of_the_trainer_is_taken():
    trainer = {"precision": "bf16-mixed", "gradient_clip_val": 1.0, "max_time": "00:01:00:00", "devices": 1}
    assert load([f"trainer.{name}={value}" for name, value in trainer.items()]).trainer.items() >= trainer.items()


def test_a_bare_value_error_of_ours_is_no_configuration_error():
    with pytest.raises(ValueError, match="invalid literal") as caught:
        int("x")
    assert not is_configuration_error(caught.value)
    assert is_configuration_error(UserError("x"))
    assert "hydra" in sys.modules


def test_every_run_has_the_same_hyperparameter_columns():
    columns = set(flat_hyperparameters(load([])))
    assert columns == set(flat_hyperparameters(load(["tokenizer=bpe", "trainer.max_steps=3", "data.shuffle=true"])))
    assert {"optimizer.lr", "model.hidden_size", "seed", "trainer.max_epochs"} <= columns
