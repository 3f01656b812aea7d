"""lm-evaluation-harness on a run's model/: the same prompts, the same answers, the same exact match."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from qa_lm.config.enums import Weights
from qa_lm.data.encoding import PromptTemplate, encode_prompts
from qa_lm.data.gpt2_vocabulary import EOS_TOKEN
from qa_lm.data.tokenizer import load_tokenizer
from qa_lm.evaluation.evaluate import EvaluatedPair, exact_match
from qa_lm.training.train import TrainingResult, train
from tests.conftest import ROOT, small_config

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not all(find_spec(name) for name in ("lm_eval", "accelerate")),
        reason='lm_eval[hf] is not installed: pip install -e ".[eval]"',
    ),
]
TASK = ROOT / "tests" / "lm_eval_task"


@dataclass(frozen=True)
class Scored:
    """What the harness wrote."""

    exact_match: float
    pairs: list[dict[str, Any]]
    """A record per pair, in the order of the file."""


def score(model: Path, out: Path, *arguments: str) -> Scored:
    """The harness in a process of its own, without a hub."""
    command = [sys.executable, "-m", "lm_eval", "run", "--model", "hf", "--device", "cpu"]
    command += ["--model_args", f"pretrained={model},add_bos_token=False"]
    command += ["--include_path", str(TASK), "--tasks", "qa_pairs", "--output_path", str(out), "--log_samples"]
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(out / "empty")}
    done = subprocess.run(
        [*command, *arguments], env=os.environ | offline, cwd=out.parent, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    (results,) = out.rglob("results_*.json")
    (samples,) = out.rglob("samples_qa_pairs_*.jsonl")
    value = json.loads(results.read_text())["results"]["qa_pairs"]["exact_match,none"]
    # Not splitlines(): it would cut at line separators inside a text.
    pairs = [json.loads(line) for line in samples.read_text(encoding="utf-8").rstrip("\n").split("\n")]
    return Scored(value, sorted(pairs, key=lambda pair: pair["doc_id"]))


def assert_same_answers(model: Path, pairs: list[dict[str, Any]], answers: list[EvaluatedPair]) -> None:
    """The harness asked the same questions and got the same texts back."""
    template = PromptTemplate.load(model)
    prompts = [template.prompt_text(answer.question) for answer in answers]
    assert [pair["arguments"]["gen_args_0"]["arg_0"] for pair in pairs] == prompts
    assert [template.answer_from(pair["resps"][0][0]) for pair in pairs] == [answer.generated for answer in answers]


@pytest.fixture(scope="module")
def half_learnt_run(tmp_path_factory: pytest.TempPathFactory) -> TrainingResult:
    """The tutorial's pairs, most of the trained ones learnt."""
    config = small_config(
        data__prompt="Q: {question}\nA:",
        evaluation__max_new_tokens=64,
        trainer__max_epochs=40,
        early_stopping__patience=None,
        export_weights=Weights.last,
    )
    return train(config, tmp_path_factory.mktemp("half_learnt"))


@pytest.fixture(scope="module")
def learnt_run(tmp_path_factory: pytest.TempPathFactory) -> TrainingResult:
    """A run on the task's own pairs, which are hard to keep as they are: all learnt but the capitals, held out."""
    config = small_config(
        data__path=[str(TASK / "pairs.jsonl")],
        data__split="shuffle",
        data__shuffle=True,
        evaluation__max_new_tokens=64,
        tokenizer__vocab_size=400,
        optimizer__lr=2e-3,
        trainer__max_epochs=80,
        early_stopping__patience=None,
        export_weights=Weights.last,
    )
    return train(config, tmp_path_factory.mktemp("learnt"))


def test_a_run_scores_as_it_scored_itself(half_learnt_run, tmp_path):
    run = half_learnt_run
    scored = score(run.folder / "model", tmp_path / "out", "--metadata", f"pairs={run.folder / 'answers.jsonl'}")
    ours = [answer.exact_match for answer in run.answers]
    assert set(ours) == {False, True}
    assert [pair["exact_match"] == 1 for pair in scored.pairs] == ours
    assert scored.exact_match == pytest.approx(exact_match(run.answers))
    assert_same_answers(run.folder / "model", scored.pairs, run.answers)


def test_only_the_text_of_eos_in_an_answer_is_scored_otherwise(learnt_run, tmp_path):
    scored = score(learnt_run.folder / "model", tmp_path / "out")
    assert len(scored.pairs) == len(learnt_run.answers) == 17
    by_pair = {(answer.question, answer.answer): answer for answer in learnt_run.answers}
    answers = [by_pair[pair["doc"]["question"], pair["doc"]["targets"][0][1:]] for pair in scored.pairs]
    assert {answer.question for answer in answers if not answer.exact_match} == {
        f"What is the capital of {country}?" for country in ("Austria", "Chile", "Kenya", "Peru")
    }
    differing = [
        answer.answer
        for answer, pair in zip(answers, scored.pairs, strict=True)
        if answer.exact_match != (pair["exact_match"] == 1)
    ]
    assert differing == [f"{EOS_TOKEN} does."]  # the harness cuts there: it looks for the text, not for the id
    kept = [number for number, answer in enumerate(answers) if EOS_TOKEN not in answer.generated]
    model = learnt_run.folder / "model"
    assert_same_answers(model, [scored.pairs[number] for number in kept], [answers[number] for number in kept])


def test_the_harness_gives_the_model_our_prompt_ids(learnt_run):
    hf = pytest.importorskip("lm_eval.models.huggingface")
    folder = learnt_run.folder / "model"
    questions = [answer.question for answer in learnt_run.answers]
    loaded = hf.HFLM(pretrained=str(folder), add_bos_token=False, device="cpu")
    found = [loaded.tok_batch_encode([question])[0][0].tolist() for question in questions]
    assert found == encode_prompts(questions, load_tokenizer(folder), PromptTemplate())
