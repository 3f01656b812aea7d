"""Settings for training from others: a file of settings, a command line to be copied. Hydra reads them first."""

import contextlib
import logging.config
import os
import pickle
import shlex
import subprocess

import hydra
import pytest
import yaml
from hydra import compose, initialize_config_dir

from qa_lm.config.compose import register_schema
from qa_lm.config.hydra_settings import composed_settings
from qa_lm.errors import UserError
from qa_lm.modeling.causal_lm import build_causal_lm
from tests.config.test_configuration import CONF, message_for
from tests.faults.attacks.hostile import trap

__all__ = ["trap"]


def test_a_file_of_settings_with_tags_that_run_code(trap, tmp_path, script):
    file = tmp_path / "settings" / "experiment" / "theirs.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(f"# @package _global_\nseed: !!python/object/apply:os.mknod ['{trap.marker}']\n")
    yaml.unsafe_load(file.read_text())
    assert trap.sprang
    done = script("train.py", "--config-dir=settings", "experiment=theirs")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.splitlines()) <= 2
    assert not trap.sprang


def hydra_node(overrides):
    """Hydra's own settings as a command line makes them, no check of ours in between."""
    register_schema()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("train", overrides, return_hydra_config=True).hydra


def quoted(target):
    return str(target).replace("'", "").replace(" ", "")


def test_a_callback_of_hydra(trap, script):
    argument = f"+hydra.callbacks.x={quoted(trap.target)}"
    hydra.utils.instantiate(hydra_node([argument]).callbacks.x)
    assert trap.sprang
    done = script("train.py", argument, "hydra.run.dir=run", "trainer.max_epochs=x")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(
        "error: hydra.callbacks.x._target_=pathlib.Path.touch: refused, because settings may not name code to run"
    )
    assert len(done.stderr.splitlines()) == 1
    assert not trap.sprang


def test_a_pickle_that_hydra_is_to_run_again(trap, tmp_path, script):
    (tmp_path / "config.pickle").write_bytes(trap.pickled)
    pickle.loads((tmp_path / "config.pickle").read_bytes())
    assert trap.sprang
    done = script("train.py", "--experimental-rerun=config.pickle")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: --experimental-rerun reads a pickle, which can run any code")
    assert len(done.stderr.splitlines()) == 1
    assert not trap.sprang


@pytest.mark.parametrize("part", ["handlers", "formatters", "filters"])
def test_parts_of_logging(trap, tmp_path, part):
    register_schema()
    factory = {"()": "os.mknod", "path": str(trap.marker)}
    before = logging.root.handlers[:], logging.root.level
    with contextlib.suppress(ValueError, AttributeError):  # what the payload leaves is no handler, but it has run
        logging.config.dictConfig({"version": 1, "disable_existing_loggers": False, part: {"x": factory}})
    logging.root.handlers[:], logging.root.level = before
    assert trap.sprang
    file = tmp_path / "settings" / "experiment" / "theirs.yaml"
    file.parent.mkdir(parents=True)
    for section in ("job_logging", "hydra_logging"):
        content = {"hydra": {section: {part: {"x": factory}}}}
        file.write_text(f"# @package _global_\n{yaml.safe_dump(content)}")
        with pytest.raises(UserError, match=rf"hydra.{section}.{part}.x.\(\)=os.mknod: refused"):
            composed_settings(CONF, [f"--config-dir={tmp_path / 'settings'}", "experiment=theirs"])
    assert not trap.sprang


def test_a_program_path_of_others(trap, tmp_path):
    """environment.json asks git for the commit: PATH says which program that is."""
    register_schema()
    program = tmp_path / "bin" / "git"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\n/bin/touch {shlex.quote(str(trap.marker))}\n")
    program.chmod(0o755)
    subprocess.run(["git"], env=os.environ | {"PATH": str(program.parent)}, check=True)
    assert trap.sprang
    with pytest.raises(
        UserError, match=r"hydra.job.env_set.PATH=.*/bin: refused, because settings may not name code to run"
    ):
        composed_settings(CONF, [f"+hydra.job.env_set.PATH={program.parent}"])
    composed_settings(CONF, ["+hydra.job.env_set.OMP_NUM_THREADS=2"])


FOREIGN = "\n".join(
    [
        "# @package _global_",
        "hydra:",
        "  callbacks:",
        "    x: {_target_: pathlib.Path.touch, self: {_target_: pathlib.Path, _args_: [MARKER]}}",
    ]
)


def test_a_file_of_settings_with_a_callback(trap, tmp_path):
    register_schema()
    folder = tmp_path / "settings" / "experiment"
    folder.mkdir(parents=True)
    (folder / "theirs.yaml").write_text(FOREIGN.replace("MARKER", str(trap.marker)))
    with pytest.raises(UserError, match=r"hydra.callbacks.x._target_=pathlib.Path.touch: refused"):
        composed_settings(CONF, [f"--config-dir={tmp_path / 'settings'}", "experiment=theirs"])
    assert not trap.sprang


@pytest.mark.parametrize(
    ("arguments", "key"),
    [
        (["hydra.launcher._target_=pathlib.Path.touch"], "hydra.launcher._target_"),
        # A path through a module of Hydra's to what that imports.
        (
            ["hydra.launcher._target_=hydra._internal.core_plugins.basic_launcher.Path.touch"],
            "hydra.launcher._target_",
        ),
        (["hydra.sweeper._target_=pathlib.Path.touch"], "hydra.sweeper._target_"),
        (["+hydra.launcher.x={a:[{_target_:pathlib.Path}]}"], "hydra.launcher.x.a.0._target_"),
        (["+hydra.job_logging.handlers.x={class:pathlib.Path}"], "hydra.job_logging.handlers.x.class"),
        (["+hydra.job.env_set.LD_PRELOAD=x.so"], "hydra.job.env_set.LD_PRELOAD"),
        (["--config-path=/tmp"], "--config-path"),
    ],
)
def test_other_ways_through_hydra(arguments, key):
    register_schema()
    with pytest.raises(UserError) as error:
        composed_settings(CONF, arguments)
    assert key in str(error.value)
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["model=tiny", "trainer.max_epochs=3", "hydra.run.dir=runs/${seed}"],
        ["-m", "optimizer.lr=1,2", "model=tiny,small", "experiment=glob(*)", "hydra.sweep.subdir=${hydra.job.num}"],
        ["hydra/job_logging=default", "hydra/hydra_logging=default", "hydra.verbose=true"],
        ["hydra/launcher=basic", "hydra/sweeper=basic", "hydra.sweeper.max_batch_size=2"],
    ],
)
def test_what_hydra_brings_is_taken(arguments):
    register_schema()
    composed_settings(CONF, arguments)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("+model._target_=TARGET", "model._target_=TARGET: code of pathlib is not run unless you trust it"),
        ("+_target_=TARGET", "_target_: no such setting"),
        ("+data={_target_:TARGET}", "data._target_: no such setting"),
        ("+model.extra={_target_:TARGET}", "model.extra._target_: gpt2 has no such argument"),
        ("+model.extra.auto_map={AutoConfig:evil.Evil}", "model.extra.auto_map: gpt2 has no such argument"),
        ("+model.extra.attn_implementation=x/y", "model.extra.attn_implementation: gpt2 has no such argument"),
        ("trainer.callbacks=[{_target_:TARGET}]", "trainer.callbacks: cannot be set"),
        ("trainer.plugins=[{_target_:TARGET}]", "trainer.plugins: cannot be set"),
        ("trainer.logger={_target_:TARGET}", "trainer.logger: cannot be set"),
        ("trainer.strategy={_target_:TARGET}", "trainer.strategy={'_target_': 'TARGET'}: must be "),
        ("trainer.profiler={_target_:TARGET}", "trainer.profiler={'_target_': 'TARGET'}: must be "),
        ("trainer.accelerator={class_path:TARGET}", "trainer.accelerator={'class_path': 'TARGET'}: must be "),
        ("trainer.default_root_dir=../../x", "trainer.default_root_dir: cannot be set"),
        ("data=../../x", "data/../..: no such group"),
        ("experiment=/etc/passwd", "experiment//etc: no such group"),
    ],
)
def test_objects_on_the_command_line(override, message, trap):
    hydra.utils.instantiate(trap.target)
    assert trap.sprang
    override = override.replace("TARGET", "pathlib.Path.touch")
    message = message.replace("TARGET", "pathlib.Path.touch")
    if "model.extra" in override:
        key, _, value = override.partition("=")
        name = key.removeprefix("+model.extra").removeprefix(".") or "_target_"
        with pytest.raises(UserError) as error:
            build_causal_lm("gpt2", 300, 64, 1, 1, 64, 0.0, 0, {name: value})
        said = str(error.value)
    else:
        said = message_for([override])
    assert said.startswith(message), said
    assert not trap.sprang
