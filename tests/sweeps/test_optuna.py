"""`hydra/sweeper=optuna`: what is searched, what becomes of trials, and that a study outlives what happens to it."""

import json
import math
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from tests.conftest import small_config
from tests.sweeps.processes import LAUNCHER, STAND_IN, Sweeps, wait_until

optuna = pytest.importorskip("optuna", minversion="5", reason="Optuna 5 is missing: pip install 'qa_lm[optuna]'")

from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution  # noqa: E402
from optuna.study import Study  # noqa: E402
from optuna.trial import FrozenTrial  # noqa: E402

from qa_lm.sweeps.optuna.space import as_override, search_space  # noqa: E402

STUDY = [*STAND_IN, "-m", *LAUNCHER, "hydra/sweeper=optuna", "hydra.sweep.dir=sweep"]
LR = "lr=tag(log,interval(1e-4,1))"


@pytest.fixture
def sweeps(tmp_path: Path) -> Iterator[Sweeps]:
    found = Sweeps(tmp_path)
    yield found
    found.end()


def open_study(folder: Path) -> Study:
    backend = optuna.storages.journal.JournalFileBackend(str(folder / "sweep" / "optuna.journal"))
    return optuna.load_study(storage=optuna.storages.JournalStorage(backend), study_name="sweep")


def trials(folder: Path) -> list[FrozenTrial]:
    return open_study(folder).trials


def states(folder: Path) -> list[str]:
    return [trial.state.name for trial in trials(folder)]


@pytest.mark.parametrize(
    ("override", "distribution"),
    [
        ("a=1,2", CategoricalDistribution(["1", "2"])),
        ("model=choice(tiny,small)", CategoricalDistribution(["tiny", "small"])),
        ("a=range(1,9,2)", IntDistribution(1, 7, step=2)),
        ("a=range(1,10,3)", IntDistribution(1, 7, step=3)),
        ("a=interval(0,1)", FloatDistribution(0.0, 1.0)),
        ("a=tag(log,interval(1e-5,1e-2))", FloatDistribution(1e-5, 1e-2, log=True)),
        ("a=int(interval(1,8))", IntDistribution(1, 8)),
        ("a=tag(log,int(interval(1,64)))", IntDistribution(1, 64, log=True)),
    ],
)
def test_the_search_space_is_in_hydras_own_words(override, distribution):
    parsed = OverridesParser.create().parse_overrides(["seed=3", override])
    space, fixed = search_space(parsed)
    assert space == {override.partition("=")[0]: distribution}
    assert fixed == ["seed=3"]


def test_mistakes_in_the_search_space():
    for overrides in (["seed=3"], ["a=tag(log,interval(0,1))"], ["a=interval(2,1)"], ["a=range(3,3)"]):
        with pytest.raises(HydraException, match="name something|interval|range"):
            search_space(OverridesParser.create().parse_overrides(overrides))


def test_a_chosen_number_is_exactly_the_one_that_the_job_gets():
    value = 0.1 + 0.2
    assert OverridesParser.create().parse_override(as_override("a", value)).value() == value
    assert OverridesParser.create().parse_override(as_override("a", 1e-05)).value() == 1e-05


@pytest.mark.slow
def test_a_failed_or_nan_job_is_a_failed_trial_and_the_study_goes_on(sweeps, tmp_path):
    arguments = ["lr=interval(0,1)", "mode=well,nan,raise,kill", "hydra.sweeper.n_trials=10", "hydra.launcher.jobs=2"]
    done = sweeps.run(*arguments, command=STUDY)
    found = trials(tmp_path)
    assert len(found) == 10
    modes = [trial.params["mode"] for trial in found]
    assert {"well", "nan", "raise"} <= set(modes) or {"well", "nan", "kill"} <= set(modes), "the seed should try these"
    for trial in found:
        well = trial.params["mode"] == "well"
        assert trial.state.name == ("COMPLETE" if well else "FAIL")
        if well:
            assert trial.value == pytest.approx((trial.params["lr"] - 0.01) ** 2)
    assert done.returncode == sum(mode in ("raise", "kill") for mode in modes), done.stderr
    best = open_study(tmp_path).best_trial
    assert f"objective {best.value:.6g} (trial {best.number})" in done.stdout

    # Again: failed jobs are tried again, as trials of the same values; what was NaN stays so.
    again = sweeps.run(*arguments, command=STUDY)
    retried = trials(tmp_path)[10:]
    assert [trial.params for trial in retried] == [t.params for t in found if t.params["mode"] in ("raise", "kill")]
    assert again.returncode == len(retried)
    assert {record["starts"] for record in sweeps.jobs().values()} == {1, 2}


@pytest.mark.slow
def test_the_study_goes_on_after_a_kill_as_if_there_had_been_none(sweeps, tmp_path):
    arguments = [LR, "seed=0,1", "pause=0.2", "hydra.sweeper.n_trials=6", "hydra.sweeper.startup_trials=2"]
    killed = sweeps.start(*arguments, command=STUDY)
    wait_until(lambda: len(sweeps.step_files()) == 3)
    killed.kill()
    killed.communicate()
    assert states(tmp_path) == ["COMPLETE", "COMPLETE", "RUNNING"]
    done = sweeps.run(*arguments, command=STUDY)
    assert done.returncode == 0, done.stderr
    assert "study: 2 finished trials, 1 interrupted, 4 remaining" in done.stdout
    assert states(tmp_path) == ["COMPLETE"] * 6
    assert len(sweeps.records()) == 6
    assert set(sweeps.starts().values()) <= {1, 2}  # 2 if the job that was left running had not finished

    undisturbed = sweeps.run(*arguments, "hydra.sweep.dir=other", command=STUDY)
    assert undisturbed.returncode == 0
    backend = optuna.storages.journal.JournalFileBackend(str(tmp_path / "other" / "optuna.journal"))
    other = optuna.load_study(storage=optuna.storages.JournalStorage(backend), study_name="sweep")
    assert [trial.params for trial in other.trials] == [trial.params for trial in trials(tmp_path)]


@pytest.mark.slow
def test_an_interrupted_study_keeps_its_trials_for_the_next_time(sweeps, tmp_path):
    arguments = [LR, "pause=0.3", "hydra.sweeper.n_trials=3", "hydra.launcher.jobs=2"]
    process = sweeps.start(*arguments, command=STUDY)
    wait_until(lambda: len(sweeps.step_files()) == 2)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "RUNNING" in states(tmp_path)
    assert sweeps.run(*arguments, command=STUDY).returncode == 0
    assert states(tmp_path) == ["COMPLETE"] * 3
    assert len(sweeps.records()) == 3


def test_what_was_tried_is_not_run_again(sweeps, tmp_path):
    done = sweeps.run("seed=0,1", "hydra.sweeper.n_trials=8", command=STUDY)
    assert done.returncode == 0
    assert states(tmp_path) == ["COMPLETE"] * 8
    assert len(sweeps.records()) == 2


def test_the_folder_of_another_study_is_refused(sweeps):
    assert sweeps.run(LR, "hydra.sweeper.n_trials=1", command=STUDY).returncode == 0
    for arguments, message in (
        (["lr=interval(0,1)"], "lr: the study in "),
        ([LR, "hydra.sweeper.direction=maximize"], "hydra.sweeper.direction=maximize: the study in "),
        ([LR, "hydra.sweeper.direction=up"], "hydra.sweeper.direction=up: must be minimize or maximize"),
    ):
        done = sweeps.run(*arguments, command=STUDY)
        assert done.returncode != 0
        assert message in done.stderr


def test_other_launchers_take_trials_by_the_batch(sweeps, tmp_path):
    basic = [*STAND_IN, "-m", "hydra/launcher=basic", "hydra/sweeper=optuna", "hydra.sweep.dir=sweep", "resume=auto"]
    done = sweeps.run("lr=interval(0,1)", "hydra.sweeper.n_trials=3", "hydra.sweeper.n_jobs=2", command=basic)
    assert done.returncode == 0, done.stderr
    # The stand-in returns nothing, so there is nothing to optimise, and the study still comes to its end.
    assert states(tmp_path) == ["FAIL"] * 3


def test_a_training_is_pruned_when_others_did_better(tmp_path, monkeypatch):
    """After trials that did well come some whose loss is high: in one of the two brackets they end at epoch 1."""
    from qa_lm.training.callbacks.pruning import STORAGE, STUDY, TRIAL
    from qa_lm.training.train import train

    journal = str(tmp_path / "optuna.journal")
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(journal))
    pruner = {"min_resource": 1, "max_resource": 3, "reduction_factor": 3}
    study = optuna.create_study(
        storage=storage, study_name="sweep", pruner=optuna.pruners.HyperbandPruner(**pruner), direction="minimize"
    )
    study.set_user_attr("pruning", pruner)
    space = {"optimizer.lr": FloatDistribution(0, 1)}
    for _ in range(9):  # some in each bracket
        good = study.ask(space)
        for epoch in (1, 2, 3):
            good.report(0.001, epoch)
            assert not good.should_prune()  # which is where Hyperband notes what it compares others with
        study.tell(good, 0.001)
    pruned = []
    for number in range(6):
        trial = study.ask(space)
        for name, value in ((STORAGE, journal), (STUDY, "sweep"), (TRIAL, str(trial.number))):
            monkeypatch.setenv(name, value)
        result = train(small_config(trainer__max_epochs=3, early_stopping__patience=None), tmp_path / str(number))
        seen = next(each for each in study.trials if each.number == trial.number)
        epochs = result.metrics["epochs_run"]
        assert len(seen.intermediate_values) == epochs
        assert all(math.isfinite(value) for value in seen.intermediate_values.values())
        assert seen.user_attrs.get("pruned_at_epoch") == (1 if epochs < 3 else None)
        assert (tmp_path / str(number) / "metrics.json").is_file()
        pruned.append(epochs < 3)
        study.tell(trial, state=optuna.trial.TrialState.PRUNED)
    # Hyperband lets some of its brackets go on to the end.
    assert set(pruned) == {True, False}


@pytest.mark.slow
def test_a_study_of_real_trainings(sweeps, tmp_path):
    """A few good learning rates, many hopeless ones: some of these are pruned, and the best is a good one."""
    from tests.conftest import ROOT
    from tests.documented import QUICK

    train = [STAND_IN[0], str(ROOT / "scripts" / "train.py"), "-m", "hydra/launcher=processes", "hydra/sweeper=optuna"]
    arguments = [
        *QUICK,
        "trainer.max_epochs=9",
        "early_stopping.patience=null",
        "optimizer.lr=1e-3,3e-3,1e-6,2e-6,3e-6",
    ]
    done = sweeps.run(*arguments, "hydra.sweep.dir=sweep", "hydra.sweeper.n_trials=12", command=train)
    assert done.returncode == 0, done.stderr
    assert open_study(tmp_path).best_params["optimizer.lr"] in ("0.001", "0.003")
    assert "PRUNED" in states(tmp_path)
    epochs = [json.loads(path.read_text())["epochs_run"] for path in tmp_path.glob("sweep/*/metrics.json")]
    assert min(epochs) < 9
    assert max(epochs) == 9
