"""The scripts as a user runs them: what is printed where, and the exit code."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from tensorboard import context
from tensorboard.backend.event_processing import data_provider, plugin_event_multiplexer
from tensorboard.plugins import base_plugin
from tensorboard.plugins.hparams import api_pb2, backend_context, get_experiment, list_session_groups

from qa_lm.threads import SPINS
from tests.conftest import ROOT
from tests.documented import QUICK, documented_commands


def test_train_prints_an_epoch_a_line_a_table_and_the_folder(script, tmp_path):
    done = script("train.py", *QUICK)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.split(":")[0] for line in lines[1:6]] == ["data", "tokenizer", "tokens per pair", "model", "training"]
    assert re.fullmatch(r"epoch 1/2   train loss \d\.\d{4}   val loss \d\.\d{4}   improved", lines[6])
    assert lines[0].startswith("starting: ")
    assert any(line.startswith("What is the capital of France?") and re.search(r"  no$", line) for line in lines)
    folder = Path(lines[-1])
    assert folder.parent.parent == tmp_path / "outputs"
    assert (folder / "loss_curve.png").is_file()
    assert done.stderr == ""
    near = folder.relative_to(tmp_path)
    report, ask, curves = lines[-5:-2]
    assert report == f"report: {near}/report.html"
    assert curves.endswith("tensorboard --logdir outputs") or curves.endswith("tensorboard.main --logdir outputs")
    python, typed, *arguments = shlex.split(ask.removeprefix("ask:"))
    assert (Path(python).is_absolute(), typed, arguments[0]) == (True, str(ROOT / "scripts" / "ask.py"), str(near))
    assert script("ask.py", *arguments).returncode == 0
    assert any(line.startswith("next:") and line.endswith("experiment=recall data=tutorial") for line in lines)


def test_help_into_a_pipe_whose_reader_has_exited():
    command = [sys.executable, str(ROOT / "scripts" / "train.py"), "--help"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout
        process.stdout.close()
        assert process.stderr
        assert process.stderr.read() == ""
    assert process.returncode == 0


@pytest.mark.slow
def test_a_first_run_does_not_speak_of_fonts(tmp_path):
    """A cache of matplotlib that is empty, and no model worth the name; in a process that has not imported it."""
    environment = os.environ | {"MPLCONFIGDIR": str(tmp_path / "fonts")}
    command = [sys.executable, str(ROOT / "scripts" / "train.py"), *QUICK]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert any((tmp_path / "fonts").glob("fontlist*"))
    assert "font" not in done.stdout + done.stderr


def test_train_on_a_file_of_ones_own_from_another_folder(script, tmp_path):
    pairs = [{"question": f"Who is number {i}?", "answer": f"He is {i}."} for i in range(20)]
    (tmp_path / "faq.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    done = script("train.py", "data=file", "data.path=faq.jsonl", "data.batch_size=4", *QUICK, "hydra.run.dir=run")
    assert done.returncode == 0, done.stderr
    assert "faq.jsonl, 20 pairs, 16 for training and 4 held out for validation" in done.stdout
    again = script("train.py", *QUICK, "hydra.run.dir=run")
    assert again.returncode == 2
    assert "already holds a run" in again.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["optimizer.lrr=1"], "error: optimizer.lrr: no such setting; did you mean optimizer.lr?\n"),
        (["+sead=1"], "error: sead: no such setting; did you mean seed?\n"),
        (["trainer.max_epoch=1"], "error: trainer.max_epoch: lightning.Trainer has no argument max_epoch; "),
        (["data=file", "data.path=none.csv"], "error: none.csv: cannot be read: No such file or directory\n"),
        (["trainer.accelerator=gpuu"], "error: trainer.accelerator=gpuu: must be one of auto, cpu, gpu, "),
        (["-m", "seed=1,2", "optimizer.lr=-1"], "error: optimizer.lr=-1.0: must be above 0 and below 10\n"),
    ],
)
def test_a_mistake_is_one_line_exit_code_2_and_leaves_nothing(script, tmp_path, arguments, message):
    done = script("train.py", *arguments)
    assert done.returncode == 2
    assert done.stderr.startswith(message)
    assert len(set(done.stderr.splitlines())) == 1
    assert not (tmp_path / "outputs").exists()


def hparams_page(folder: Path) -> tuple[list[str], list[str], dict[str, tuple[float, float]]]:
    """What TensorBoard's HParams page shows of a folder: its settings and first metrics in their order, and by job its
    learning rate and best validation loss."""
    events = plugin_event_multiplexer.EventMultiplexer()
    events.AddRunsFromDirectory(str(folder))
    events.Reload()
    provider = data_provider.MultiplexerDataProvider(events, str(folder))
    page = backend_context.Context(base_plugin.TBContext(data_provider=provider))
    ask = api_pb2.ListSessionGroupsRequest(start_index=0, slice_size=99, include_metrics=True)
    ask.allowed_statuses.extend([api_pb2.STATUS_UNKNOWN, api_pb2.STATUS_SUCCESS])
    groups = list_session_groups.Handler(context.RequestContext(), page, "sweep", ask).run().session_groups
    here = context.RequestContext()
    found = get_experiment.Handler(here, page, "sweep", api_pb2.GetExperimentRequest(include_metrics=True)).run()
    columns = [info.name for info in found.hparam_infos], [info.name.tag for info in found.metric_infos][:4]
    return *columns, {
        group.name: (
            group.hparams["optimizer.lr"].number_value,
            next(metric.value for metric in group.metric_values if metric.name.tag == "learning results/best_val_loss"),
        )
        for group in groups
    }


def test_a_sweep_has_a_folder_a_job_and_its_hyperparameters(script, tmp_path):
    """The documented one, without one of its jobs."""
    (command,) = [each for each in documented_commands(ours=True) if " -m optimizer.lr=" in each]
    words = [word.replace("5e-5,", "") for word in command.split()[2:] if not word.startswith("model=")]
    done = script("train.py", *words, *QUICK, "hydra.sweep.dir=sweep")
    assert done.returncode == 0, done.stderr
    losses = set()
    settings, metric_names, page = hparams_page(tmp_path / "sweep")
    assert settings == ["optimizer.lr"]
    results = ("best_val_loss", "recall", "seconds", "val_exact_match")
    assert metric_names == [f"learning results/{name}" for name in results]
    rates = set()
    for file in (tmp_path / "sweep").glob("*/metrics.json"):
        metrics = json.loads(file.read_text())
        losses.add(metrics["final_val_loss"])
        lr = yaml.safe_load((file.parent / "config.yaml").read_text())["optimizer"]["lr"]
        rates.add(lr)
        assert file.parent.name.startswith(f"lr-{lr}_"), file
        assert page[file.parent.name] == pytest.approx((lr, metrics["best_val_loss"]))
    assert rates == {1e-5, 1e-4}
    assert len(losses) == 2


def test_check_data_says_what_a_file_holds_and_what_is_wrong(script, tmp_path):
    pairs = [{"Q": f"Who is number {i}?", "A": f"He is {i}."} for i in range(20)]
    text = "".join(json.dumps(pair) + "\n" for pair in [*pairs, {"Q": "Who is number 3?", "A": "He is 4."}])
    (tmp_path / "faq.jsonl").write_text(text)
    done = script("check_data.py", "faq.jsonl", "--output", "report.json")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0] == "faq.jsonl: question = Q, answer = A"
    assert re.match(r"pairs 21 +train 1[67] +validation [45] +test 0 +questions 20 ", lines[1])
    assert re.match(r"best possible: recall 95.24%", lines[8])
    assert lines[-1] == (
        "warning: questions with different answers: 1; no model can answer more than 95.24% of the pairs; "
        "the first: 'Who is number 3?' at faq.jsonl:4, faq.jsonl:21"
    )
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["contradictions"]["listed"][0]["places"] == ["faq.jsonl:4", "faq.jsonl:21"]
    assert report["lengths"]["question_characters"] == {
        f"p{p}": 16 if p <= 50 else 17 for p in (0, 1, 5, 25, 50, 75, 95, 99, 100)
    }
    strict = script("check_data.py", "faq.jsonl", "--strict")
    assert (strict.returncode, strict.stdout) == (2, done.stdout)
    assert strict.stderr == "error: --strict: warnings above: 1\n"


def test_check_data_shows_bad_lines_beside_the_sound_ones(script, tmp_path):
    (tmp_path / "faq.jsonl").write_text('{"question": "a", "answer": "b"}\n' * 2 + "{oops\n" * 25)
    done = script("check_data.py", "faq.jsonl", "--split", "shuffle")
    assert done.returncode == 2
    assert "pairs 2 " in done.stdout
    assert done.stderr.splitlines()[:2] == [
        "error: 25 bad lines, the first 20:",
        "faq.jsonl:3: not JSON: Expecting property name enclosed in double quotes at column 2",
    ]
    others = ", ".join(str(line) for line in range(4, 23))
    assert done.stderr.splitlines()[2:] == [f"the same in lines {others}"]


def test_ask_one_question(script, small_run):
    asked = next(answer for answer in small_run.answers if answer.generated)
    done = script("ask.py", str(small_run.folder), *asked.question.split())
    assert (done.returncode, done.stdout, done.stderr) == (0, asked.generated + "\n", "")


def test_ask_many_and_for_programs(script, small_run, tmp_path):
    questions = [answer.question for answer in small_run.answers]
    (tmp_path / "questions.txt").write_text("\ufeff" + "\r\n".join([*questions, ""]))
    done = script("ask.py", str(small_run.folder / "model"), "--file", "questions.txt", "--json")
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [answer["question"] for answer in answers] == questions
    assert [answer["answer"] for answer in answers] == [answer.generated for answer in small_run.answers]
    assert [answer["stopped"] for answer in answers] == [answer.stopped for answer in small_run.answers]


def test_talk_until_the_end_of_input(script, small_run):
    first, second = (answer for answer in small_run.answers[:2])
    done = script("ask.py", str(small_run.folder), stdin=f"{first.question}\n\n{second.question}\n")
    assert (done.returncode, done.stdout) == (0, f"{first.generated}\n{second.generated}\n")


def test_ask_draws_by_seed(script, small_run):
    def draw(seed: str) -> str:
        options = ["--temperature", "3", "--seed", seed, "--max-new-tokens", "12"]
        return script("ask.py", str(small_run.folder), "How are you?", *options).stdout

    assert draw("1") == draw("1") != draw("2")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none", "x"], "error: none: no such folder"),
        ([".", "x"], "error: .: contains no model"),
        (["{run}", " "], "error: question 1 is empty"),
        (["{run}", "word " * 999], "tokens; this model's context is 256, answer included"),
        (["{run}", "x", "--top-k", "5"], "error: --top-k and --top-p need --temperature above 0"),
        (["{run}", "--file", "none.txt"], "error: none.txt: cannot be read: No such file"),
    ],
)
def test_mistakes_in_asking(script, small_run, arguments, message):
    done = script("ask.py", *[argument.replace("{run}", str(small_run.folder)) for argument in arguments])
    assert done.returncode == 2
    assert message in done.stderr
    assert (done.stdout, len(done.stderr.splitlines())) == ("", 1)


def test_training_says_what_it_starts_before_imports_that_take_seconds(tmp_path):
    source = """
import builtins, runpy, sys
said = print
def first(*texts, **options):
    said(*texts, "torch" in sys.modules, **options)
    raise SystemExit
builtins.print = first
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
    command = [sys.executable, "-c", source, str(ROOT / "scripts" / "train.py"), "data=tutorial", "experiment=recall"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "starting: tutorial, experiment=recall False\n"), done.stderr


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, str(SPINS)),
        ({"GOMP_SPINCOUNT": "7"}, "7"),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, "None"),
    ],
)
def test_scripts_let_waiting_threads_sleep_soon(given, expected):
    """In a process of its own, before torch is imported."""
    source = "import atexit, os, sys, runpy;"
    source += "atexit.register(lambda: print(os.environ.get('GOMP_SPINCOUNT'), 'torch' in sys.modules));"
    source += "sys.argv = [sys.argv[1], '--nonsense']; runpy.run_path(sys.argv[0], run_name='__main__')"
    environment = {key: value for key, value in os.environ.items() if key not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    for name in ("train.py", "ask.py", "evaluate.py"):
        command = [sys.executable, "-c", source, str(ROOT / "scripts" / name)]
        done = subprocess.run(command, capture_output=True, text=True, env=environment | given, check=False)
        assert (done.returncode, done.stdout) == (2, f"{expected} False\n"), done.stderr


@pytest.mark.slow
def test_the_benchmark_times_parts_that_are_there():
    source = """
from benchmarks import timed_run
class Lookup:
    def watch(self, owner, name, part):
        print(getattr(owner, name))
timed_run.watch_parts(Lookup())
"""
    command = [sys.executable, "-c", source]
    done = subprocess.run(command, cwd=ROOT / "scripts", capture_output=True, text=True, check=True)
    assert len(done.stdout.splitlines()) > 10


def test_the_benchmark_compares_with_the_fastest_peer():
    source = """
from benchmarks.peers import print_fastest
run = lambda speed, memory: {"tokens_per_second": speed, "peak_memory": memory}
sides = {"a: ours": [run(280, 90), run(300, 90), run(900, 90)], "a: loop": [run(10, 30)]}
print_fastest(sides | {"a: trl": [run(100, 60), run(50, 60)], "b: ours": [run(1, 1)], "b: loop": [run(2, 4)]})
"""
    command = [sys.executable, "-c", source]
    done = subprocess.run(command, cwd=ROOT / "scripts", capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        "a: 4.00 times the tokens/s of the fastest peer, trl, with 1.50 times its memory",
        "b: 0.50 times the tokens/s of the fastest peer, loop, with 0.25 times its memory",
    ]
