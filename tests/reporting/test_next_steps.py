"""What a run says at its end: where to look, what to type, and what to do if it learnt little."""

import shlex

import pytest

from qa_lm.reporting.run.next_steps import Terminal, next_arguments, next_steps, quoted, why_little
from qa_lm.reporting.run.verdict import verdict
from qa_lm.run.reader import read_run
from tests.reporting.report_example import (
    ANSWERS,
    BOARD,
    CONFIG,
    ENVIRONMENT,
    METRICS,
    answer,
    board_row,
    measured,
    run_folder,
)
from tests.reporting.report_pages import both

TUTORIAL = CONFIG | {"data": {"path": "tutorial", "prompt": "{question}"}, "optimizer": {"lr": 5e-5}}
RECIPE = CONFIG | {
    "stop_at_recall": 0.99,
    "monitor": "train/recall",
    "optimizer": {"lr": 0.0045, "schedule_epochs": 10},
}
FAILED = METRICS | {"recall": 0.0, "steps": 24, "best_epoch": 3, "epochs_run": 3, "stopped_early": False}
WANTED = ["wanted.jsonl", "it's here", 'say "it"', "$HOME", "a b", "ü", "data.path=[a.csv,b.csv]", "x!y", ""]


@pytest.mark.parametrize("word", WANTED)
def test_a_quoted_word_comes_back_from_the_shell(word):
    assert shlex.split(quoted(["ask.py", word])) == ["ask.py", word]


def test_words_stand_in_double_quotes_where_they_can():
    assert quoted(["ask.py", "outputs/1", "What's that?"]) == 'ask.py outputs/1 "What\'s that?"'
    assert quoted(["costs $5!"]) == "'costs $5!'"


def test_paths_are_short_where_the_user_is_and_absolute_elsewhere(tmp_path):
    terminal = Terminal(tmp_path, tmp_path / "scripts", str(tmp_path / ".venv" / "bin" / "python"))
    assert terminal.script("ask.py", "run") == ".venv/bin/python scripts/ask.py run"
    assert terminal.tensorboard("outputs") == ".venv/bin/python -m tensorboard.main --logdir outputs"
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "tensorboard").touch()
    assert terminal.tensorboard("outputs") == ".venv/bin/tensorboard --logdir outputs"
    elsewhere = Terminal(tmp_path / "mine", tmp_path / "scripts", terminal.python)
    assert elsewhere.script("ask.py") == f"{tmp_path}/.venv/bin/python {tmp_path}/scripts/ask.py"


def test_an_activated_environment_is_just_python(tmp_path, monkeypatch):
    program = tmp_path / "env" / "python"
    program.parent.mkdir()
    program.touch(0o755)
    here = tmp_path / "here"
    assert Terminal(here, tmp_path, str(program)).script("ask.py").startswith(str(program))
    monkeypatch.setenv("PATH", str(program.parent))
    assert Terminal(here, tmp_path, str(program)).script("ask.py") == f"python {tmp_path}/ask.py"


def steps_of(root, **parts):
    """The lines at the end of a run that stands in outputs/."""
    folder = run_folder(root / "outputs", **parts)
    return folder, next_steps(folder, Terminal(root, root / "scripts", "/env/python")).splitlines()


def test_a_run_that_learnt_names_its_report_a_question_and_its_curves(tmp_path):
    folder, lines = steps_of(tmp_path)
    near = folder.relative_to(tmp_path)
    assert lines == [f"report: {near}/report.html", f'ask:    /env/python scripts/ask.py {near} "question 1"']
    (folder / "events.out.tfevents.1").touch()
    assert next_steps(folder, Terminal(tmp_path, tmp_path, "/env/python")).splitlines()[-1] == (
        "curves: /env/python -m tensorboard.main --logdir outputs"
    )
    inside = Terminal(folder.parent, tmp_path, "/env/python")
    assert next_steps(folder, inside).splitlines()[-1].endswith(f"--logdir {folder.name}")


def test_no_question_is_typed_that_could_not_be_asked(tmp_path):
    odd = [answer(n, question=text) for n, text in enumerate(["-x", "two\nlines", "long " * 20, "\x1b[2J", " "])]
    assert steps_of(tmp_path / "a", answers=odd)[1][-1].endswith("04-16-36")
    with_context = CONFIG | {"data": {"path": "a.jsonl", "prompt": "{context}\n{question}"}}
    assert steps_of(tmp_path / "b", config=with_context)[1][-1].endswith("04-16-36")
    best = [answer(1, right=False), answer(2, "validation"), answer(3)]
    assert steps_of(tmp_path / "c", answers=best)[1][-1].endswith('"question 3"')


def test_a_run_that_learnt_little_says_why_and_what_to_type(tmp_path):
    environment = ENVIRONMENT | {"command": ["train.py", "model=tiny"]}
    _, lines = steps_of(tmp_path, config=TUTORIAL, metrics=FAILED, environment=environment)
    assert lines[:3] == [
        "The model learnt little: 24 optimizer steps in total at a learning rate of 5e-05; the training loss was still "
        "falling",
        "(2.2500 to 1.1250 in the last epoch).",
        "next:   /env/python scripts/train.py experiment=recall data=tutorial",
    ]
    assert lines[3] == ""


@pytest.mark.parametrize("recall", [0.5, 1.0, None])
def test_no_reasons_where_enough_was_learnt_or_nothing_asked(tmp_path, recall):
    run = read_run(run_folder(tmp_path, metrics=FAILED | {"recall": recall}))
    assert why_little(run) == []


def test_an_early_stop_is_a_reason(tmp_path):
    stopped = FAILED | {"stopped_early": True, "best_epoch": 1, "epochs_run": 6, "steps": 6000}
    steady = "epoch,step,train_loss,val_loss,val_exact_match,train_recall\n1,8,2.0,3.0,0,0\n2,16,1.99,3.1,0,0\n"
    run = read_run(run_folder(tmp_path, epochs=steady, metrics=stopped))
    assert why_little(run) == [
        "training stopped early, at epoch 6, and model/ holds epoch 1, the best by val/loss, which says little about "
        "held-out facts"
    ]


@pytest.mark.parametrize(
    ("typed", "config", "wanted"),
    [
        (["data=file", "data.path=my pairs.jsonl", "model=tiny"], CONFIG, ["data.path=my pairs.jsonl"]),
        (["data.path=a.csv", "data.question=Q", "data.packing=false"], CONFIG, ["data.path=a.csv", "data.question=Q"]),
        (["experiment=capitals"], CONFIG | {"data": {"path": "capitals"}}, ["data=capitals"]),
        (["data=hub", "data.hub=x/y"], CONFIG | {"data": {"hub": "x/y"}}, ["data=hub", "data.hub=x/y"]),
        (["resume=outputs/1"], CONFIG, ["data.path=faq.jsonl"]),
        (["-m", "data.path=a.csv,b.csv", "seed=1,2"], CONFIG, ["data.path=faq.jsonl"]),
        (["--config-dir", "x"], CONFIG | {"data": {"path": ["a.csv", "b.csv"]}}, ["data.path=[a.csv,b.csv]"]),
    ],
)
def test_the_recipe_is_offered_for_the_pairs_that_were_given(tmp_path, typed, config, wanted):
    environment = ENVIRONMENT | {"command": ["train.py", *typed]}
    run = read_run(run_folder(tmp_path, config=config, environment=environment))
    assert next_arguments(run) == ["experiment=recall", *wanted]


def test_a_pretrained_start_is_offered_the_goal_of_recall(tmp_path):
    typed = ["experiment=finetune", "model.path=base", "data.path=a.csv", "goal=held_out", "seed=3"]
    config = CONFIG | {"model": CONFIG["model"] | {"path": "base"}}
    environment = ENVIRONMENT | {"command": ["train.py", *typed]}
    run = read_run(run_folder(tmp_path, config=config, environment=environment))
    wanted = ["experiment=finetune", "model.path=base", "data.path=a.csv", "seed=3", "goal=recall"]
    assert next_arguments(run) == wanted
    config |= {"stop_at_recall": 0.99}
    run = read_run(run_folder(tmp_path / "2", config=config, environment=environment))
    assert next_arguments(run) == []


def test_where_the_recipe_failed_more_epochs_are_offered(tmp_path):
    environment = ENVIRONMENT | {"command": ["train.py", "experiment=recall", "data.path=a.csv", "seed=3"]}
    run = read_run(run_folder(tmp_path, config=RECIPE | {"trainer": {"max_epochs": 25}}, environment=environment))
    longer = ["optimizer.schedule_epochs=20", "trainer.max_epochs=30"]
    assert next_arguments(run) == ["experiment=recall", "data.path=a.csv", "seed=3", *longer]
    again = ENVIRONMENT | {"command": ["train.py", *next_arguments(run)]}
    twice = RECIPE | {"optimizer": {"schedule_epochs": 20}, "trainer": {"max_epochs": 60}}
    run = read_run(run_folder(tmp_path / "2", config=twice, environment=again))
    assert next_arguments(run) == [
        *("experiment=recall", "data.path=a.csv", "seed=3", "trainer.max_epochs=30"),
        "optimizer.schedule_epochs=40",
    ]


def headline(root, exact, nearest):
    rows = [
        board_row("train", "trained pairs", 96, measured(1.0, 0.96, 1.0), None),
        board_row("validation", "all held-out pairs", 24, exact, nearest),
    ]
    run = read_run(run_folder(root, answers=ANSWERS, board=BOARD | {"rows": rows}))
    return verdict(run)


def test_the_headline_says_when_copying_is_better(tmp_path):
    first, _, held_out, *_ = headline(tmp_path, measured(1 / 24, 0.007, 0.2), measured(0.25, 0.12, 0.45))
    assert first == (
        "The model has memorised its training questions, but answers held-out ones worse than copying would."
    )
    assert held_out.endswith(
        "fewer than copying the answer of the nearest training question (25.0%), though 1 against 6 may be chance."
    )


def test_the_headline_with_equal_and_worse_copying(tmp_path):
    first, _, held_out, *_ = headline(tmp_path / "1", measured(0.25, 0.12, 0.45), measured(0.25, 0.12, 0.45))
    assert first.endswith("but answers held-out ones no better than copying would.")
    assert held_out.endswith("no more than copying the answer of the nearest training question.")
    first, *_ = headline(tmp_path / "2", measured(0.9, 0.8, 0.95), measured(0.25, 0.12, 0.45))
    assert first.endswith("and answers held-out ones better than copying would.")


def test_the_report_of_a_failed_run_has_the_command(tmp_path):
    page, plain = both(run_folder(tmp_path, metrics=FAILED))
    for text in (page.text, " ".join(plain.split())):
        assert "Likely reasons for the low recall: 24 optimizer steps in total at a learning rate of 0.0045;" in text
        assert 'python scripts/train.py experiment=recall "data.path=my pairs.jsonl"' in text
