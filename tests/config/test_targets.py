"""Classes that settings name by `_target_`: which are taken, and what is said of the others."""

import sys

import pytest
from lightning.pytorch.callbacks import Callback, ModelSummary
from omegaconf import OmegaConf

import qa_lm
from qa_lm.config.compose import resolved_yaml
from qa_lm.config.resume import resumed_config
from qa_lm.config.targets import check_targets, instantiate
from qa_lm.errors import UserError
from qa_lm.modeling.optimizers import OptimizerOfClass
from qa_lm.training.custom import CustomParts, with_targets

OWN = """
from lightning.pytorch.callbacks import Callback

print("imported", __name__)

class Every(Callback):
    def __init__(self, steps, words="a"):
        if steps < 1:
            raise ValueError("steps must be at least 1")
        self.steps, self.words = steps, words
"""


@pytest.fixture
def own_package(tmp_path, monkeypatch):
    """A module in the current folder, under a name that no other test imports."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*sys.path])
    (tmp_path / "my_callbacks.py").write_text(OWN)
    monkeypatch.delitem(sys.modules, "my_callbacks", raising=False)
    return "my_callbacks"


def parts(*overrides: str) -> CustomParts:
    return with_targets(CustomParts(), qa_lm.compose(*overrides))


def test_a_callback_of_lightning_needs_no_trust():
    (callback,) = parts("callbacks=model_summary").callbacks
    assert isinstance(callback, ModelSummary)
    assert callback._max_depth == 2
    assert [type(each).__name__ for each in parts("callbacks=[model_summary,device_stats]").callbacks] == [
        "ModelSummary",
        "DeviceStatsMonitor",
    ]


def test_a_callback_of_ones_own_is_run_only_on_the_users_word(own_package, capsys):
    node = ["callbacks.every._target_=my_callbacks.Every", "callbacks.every.steps=3"]
    with pytest.raises(UserError, match=r"callbacks\.every\._target_=my_callbacks\.Every: .* add trust=my_callbacks"):
        parts(*node)
    assert "imported" not in capsys.readouterr().out
    (callback,) = parts("trust=my_callbacks", *node).callbacks
    assert vars(callback) == {"steps": 3, "words": "a"}


def test_trust_comes_from_the_command_line_only(own_package, tmp_path, capsys):
    (tmp_path / "experiment").mkdir()
    header = "# @package _global_\n"
    (tmp_path / "experiment" / "theirs.yaml").write_text(f"{header}trust: my_callbacks\n")
    with pytest.raises(UserError, match="trust: allowed on the command line only"):
        qa_lm.compose("experiment=theirs", config_dir=tmp_path)
    params = "hydra:\n  sweeper:\n    params:\n      trust: my_callbacks\n"
    (tmp_path / "experiment" / "theirs.yaml").write_text(header + params)
    with pytest.raises(UserError, match="allowed on the command line only"):
        qa_lm.compose("experiment=theirs", config_dir=tmp_path)
    assert "imported" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["callbacks.a._target_=os.system"],
            "callbacks.a._target_=os.system: code of os is not run unless you trust it",
        ),
        (["callbacks.a._target_=torch.os.system"], "cannot import torch.os"),
        (["callbacks.a._target_=torch.nn.Linear"], "is not a subclass of lightning.pytorch.callbacks"),
        (["callbacks.a._target_=torch.save"], "is not a subclass of"),
        (["callbacks.a._target_=Timer"], "must be a module and a class"),
        (["callbacks.a._target_=lightning.pytorch.callbacks.Timmer"], "did you mean Timer?"),
        (["callbacks.a._target_=lightning.pytorch.callbaks.Timer"], "cannot import lightning.pytorch.callbaks"),
        (["callbacks.a.steps=3"], "callbacks.a: has no _target_"),
        (["callbacks.a=3"], "callbacks.a: has no _target_"),
        (["callbacks.a._target=x.Y"], "callbacks.a._target: is not read here; did you mean _target_?"),
        (["callbacks=device_stats", "callbacks.device_stats.cpu_stat=1"], "did you mean cpu_stats?"),
        (["callbacks=model_summary", "callbacks.model_summary.max_dept=1"], "did you mean max_depth?"),
        (
            ["callbacks=device_stats", "callbacks.device_stats.cpu_stats={_target_: os.system}"],
            "callbacks.device_stats.cpu_stats: _target_ is not read here",
        ),
        (["optimizer._target_=torch.optim.SGDD"], "optimizer._target_=torch.optim.SGDD: torch.optim has no SGDD"),
        (["optimizer._target_=torch.optim.SGD", "optimizer.momentm=1"], "did you mean momentum?"),
        (["optimizer._target_=torch.optim.SGD", "optimizer.betas=[0.9,0.9]"], "SGD has no argument betas"),
        (["model._target_=torch.nn.Linear"], "is not a subclass of transformers"),
        (["model._target_=torch.nn.Linear", "model.a={_target_: x.Y}"], "model.a: _target_ is not read here"),
        (["optimizer.nesterov=true"], "optimizer.nesterov: no such setting"),
        (["trust=no_such_package"], "trust=no_such_package: cannot be imported: ModuleNotFoundError"),
        (["trust=a-b"], "trust=a-b: give the name of a Python package"),
        (["monitor=my/metric"], "monitor=my/metric: must be one of val/loss"),
    ],
)
def test_mistakes(overrides, message):
    with pytest.raises(UserError) as caught:
        parts(*overrides)
    assert message in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_a_constructor_that_refuses_a_value(own_package):
    with pytest.raises(UserError, match=r"callbacks\.a: my_callbacks\.Every cannot be built: ValueError: steps must"):
        parts("trust=my_callbacks", "callbacks.a._target_=my_callbacks.Every", "callbacks.a.steps=0")
    with pytest.raises(UserError, match=r"callbacks\.a\.steps: Every needs it"):
        parts("trust=my_callbacks", "callbacks.a._target_=my_callbacks.Every")


def test_further_keys_of_an_optimizer_are_arguments_of_its_class():
    config = qa_lm.compose("optimizer._target_=torch.optim.SGD", "optimizer.nesterov=true", "optimizer.momentum=0.9")
    assert config.optimizer.extra == {"nesterov": True}
    found = with_targets(CustomParts(), config).optimizer
    assert isinstance(found, OptimizerOfClass)
    assert found.arguments == {"nesterov": True, "momentum": 0.9, "lr": 5e-5}
    again = OmegaConf.create(resolved_yaml(config)).optimizer
    assert (again._target_, again.extra) == ("torch.optim.SGD", {"nesterov": True})


def test_a_run_names_no_class(own_package, tmp_path, capsys):
    node = ["callbacks.every._target_=my_callbacks.Every", "callbacks.every.steps=3"]
    theirs = qa_lm.compose("trust=my_callbacks", *node, "optimizer._target_=torch.optim.SGD")
    (tmp_path / "config.yaml").write_text(resolved_yaml(theirs))
    for ours in ([], ["trust=torch"], ["trust=my_callbacks"]):
        with pytest.raises(UserError, match="this run names a class"):
            resumed_config(tmp_path, qa_lm.compose("resume=auto", *ours), [])
    trusted = qa_lm.compose("resume=auto", "trust=[torch,my_callbacks]")
    assert resumed_config(tmp_path, trusted, []).callbacks == theirs.callbacks
    same = qa_lm.compose("resume=auto", "trust=my_callbacks", *node, "optimizer._target_=torch.optim.SGD")
    assert resumed_config(tmp_path, same, []).optimizer._target_ == "torch.optim.SGD"
    assert "imported" not in capsys.readouterr().out


def test_an_argument_by_default_is_given_where_the_class_has_it():
    node = {"_target_": "lightning.pytorch.callbacks.ModelSummary"}
    assert instantiate(node, Callback, "callbacks.a", None, max_depth=5, save_dir="x")._max_depth == 5
    assert instantiate({**node, "max_depth": 3}, Callback, "callbacks.a", None, max_depth=5)._max_depth == 3
    check_targets(qa_lm.compose("callbacks=model_summary"))
