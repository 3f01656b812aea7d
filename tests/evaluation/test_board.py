"""The board's rows are what a short script over answers.jsonl computes; relations, stopping, and golden questions."""

import json
import shutil
from collections import Counter, defaultdict
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from qa_lm.config.enums import AnswerMode, LossWeighting, Mode, OptimizerKind
from qa_lm.config.schema import DataConfig, ModelConfig
from qa_lm.data.pairs import Pair, normalise_question
from qa_lm.data.quality import similarity
from qa_lm.data.quality.similarity import TrainedQuestions
from qa_lm.errors import UserError
from qa_lm.evaluation.board import board
from qa_lm.evaluation.evaluate import EvaluatedPair
from qa_lm.evaluation.explanation import Explainer
from qa_lm.evaluation.overlap import TrainedPairs
from qa_lm.inference.answerer import Answerer
from qa_lm.names import KNOWN_ANSWER, NEAR, NEW, TRAINED
from qa_lm.training.train import train
from tests.conftest import SHARED_DATA, small_config

QUESTIONS = ["What is the capital of France?", "What is the capital of Peru?", "Who wrote Harry Potter?"]
ANSWERS = ["Paris", "Lima", "J.K. Rowling"]


def evaluated(**changes):
    values: dict[str, Any] = {
        "question": "q",
        "answer": "the right answer",
        "generated": "the right answer",
        "exact_match": True,
        "normalised_exact_match": True,
        "f1": 1.0,
        "stopped": True,
        "split": "validation",
        "held_out": "",
        "relation": NEW,
        "nearest_question": "p",
        "nearest_is_right": False,
        "most_common_is_right": False,
        "log_probability": -0.1,
        "eos_log_probability": -0.01,
    }
    return EvaluatedPair(**values | changes)


def test_relations_to_the_trained_pairs():
    trained = TrainedPairs(QUESTIONS, ANSWERS)
    asked = [
        Pair("what is the capital of France", "Paris"),
        Pair("What is the capital of France, please?", "Paris"),
        Pair("In which city is the Eiffel tower?", "paris."),
        Pair("Where do the Incas live?", "Nowhere", ("Lima",)),
        Pair("Where is Cusco?", "Peru"),
    ]
    found = trained.overlaps(asked)
    assert [each.name for each in found] == [TRAINED, NEAR, KNOWN_ANSWER, KNOWN_ANSWER, NEW]
    assert [each.nearest_question for each in found[:2]] == [QUESTIONS[0]] * 2
    assert found[0].nearest_answer == "Paris"
    assert {each.most_common_answer for each in found} == {"J.K. Rowling"}  # all are as common: the first in order


def test_the_nearest_question_and_near_ones_equal_a_plain_search(monkeypatch):
    monkeypatch.setattr(similarity, "QUESTIONS", 2)
    questions = [*QUESTIONS, "How tall is Mount Everest?", "How tall is K2?", "Who painted the Mona Lisa?"]
    others = ["What is the capital of Perú?", "Who wrote Moby Dick?", "How tall is mount Everest", "", "zzzz", "It is"]
    others.append("Who wrote Harry Potter, xylophone jumpers?")  # many pieces that no trained question has
    index = TrainedQuestions(questions)
    places, near = index.nearest(others)

    def pieces(text):
        text = normalise_question(text)
        return {text[i : i + 4] for i in range(max(1, len(text) - 3))}

    for number, other in enumerate(others):
        shares = [len(pieces(other) & pieces(each)) / len(pieces(other) | pieces(each)) for each in questions]
        assert near[number] == (max(shares) >= 0.75)
        if max(shares) > 0.3:
            assert places[number] == shares.index(max(shares))


def test_stopping_counts_cut_and_running_answers():
    pairs = [
        evaluated(),
        evaluated(generated="the right", exact_match=False),
        evaluated(generated="The right answer, of course", exact_match=False, stopped=False),
        evaluated(generated="something else", exact_match=False, eos_log_probability=float("nan")),
    ]
    found = board(pairs)
    (stopping,) = found["stopping"]
    assert (stopping["stop_rate"], stopping["cut_early"], stopping["run_on"]) == (0.75, 1, 1)
    assert stopping["eos_probability"] == pytest.approx(0.99005, abs=1e-5)
    assert found["warnings"] == [
        "only 75.0% of the answers to all held-out pairs end on their own; the others were cut at the length limit"
    ]
    assert board([]) == {"rows": [], "stopping": [], "confidence": None, "warnings": []}


def test_a_warning_about_endings_needs_answers_that_end_elsewhere():
    unsure = {"split": "train", "eos_log_probability": -0.2}
    assert board([evaluated(**unsure)])["warnings"] == []  # the answer is right, its end included
    cut = evaluated(**unsure, generated="the right", exact_match=False)
    (warning,) = board([evaluated(**unsure), cut])["warnings"]
    assert warning.startswith("50.0% of the answers to trained pairs end too early or too late; train longer")
    (stopping,) = board([evaluated(generated="????", exact_match=False), evaluated(generated="")])["stopping"]
    assert stopping["cut_early"] == 1  # the empty one: marks are not the beginning of an answer


@pytest.fixture(scope="module")
def capitals_run(tmp_path_factory):
    data = DataConfig(path="capitals", split="phrasing_and_fact", packing=True, row_tokens=64, batch_size=16)
    data.train_fraction = 0.9
    config = small_config(data=data, trainer__max_epochs=8, early_stopping__patience=None, optimizer__lr=1e-2)
    config.optimizer.kind, config.optimizer.betas = OptimizerKind.muon, (0.9, 0.95)
    config.loss_weighting = LossWeighting.token
    config.model = ModelConfig(
        architecture="llama", hidden_size=128, layers=1, heads=2, extra={"intermediate_size": 384}
    )
    config.monitor, config.monitor_mode = "val/exact_match", Mode.max
    config.tokenizer.vocab_size, config.evaluation.max_pairs = 1500, 2000
    return train(config, tmp_path_factory.mktemp("capitals"))


def check_rows(run):
    """The board again, from the texts of answers.jsonl alone."""
    answers = [json.loads(line) for line in (run / "answers.jsonl").read_text().splitlines()]
    rows = defaultdict(list)
    for a in answers:
        names = [{"train": "trained pairs", "validation": "all held-out pairs"}[a["split"]]]
        names += [name for name in (a["relation"], a["held_out"]) if name]
        for name in names:
            rows[a["split"], name].append(a["generated"] == a["answer"] and a["stopped"])
    found = json.loads((run / "board.json").read_text())["rows"]
    assert {(row["split"], row["name"]): row["n"] for row in found} == {key: len(all_) for key, all_ in rows.items()}
    for row in found:
        right = rows[row["split"], row["name"]]
        assert row["exact_match"]["value"] == pytest.approx(sum(right) / len(right))
        assert row["exact_match"]["low"] <= row["exact_match"]["value"] <= row["exact_match"]["high"]
        assert row["normalised_exact_match"]["value"] >= row["exact_match"]["value"]
        assert row["f1"]["value"] >= row["normalised_exact_match"]["value"]
    return answers, {(row["split"], row["name"]): row for row in found}


def test_the_rows_of_capitals(capitals_run):
    answers, rows = check_rows(capitals_run.folder)
    reasons = Counter(a["held_out"] for a in answers if a["split"] == "validation")
    assert reasons == {"unseen phrasing of a trained fact": 175, "unseen fact": 133}
    # An unseen phrasing is near a trained one, or at least has a trained answer; an unseen fact has none.
    for a in answers:
        if a["held_out"] == "unseen phrasing of a trained fact":
            assert a["relation"] in (NEAR, KNOWN_ANSWER)
        elif a["held_out"] == "unseen fact":
            assert a["relation"] in (NEAR, NEW)
    copied = rows["validation", "all held-out pairs"]["baselines"]["nearest_question"]["value"]
    trained = {a["question"]: a["answer"] for a in answers if a["split"] == "train"}
    held_out = [a for a in answers if a["split"] == "validation"]
    assert copied == pytest.approx(sum(trained[a["nearest_question"]] == a["answer"] for a in held_out) / 308)
    assert rows["train", "trained pairs"]["baselines"] is None


def test_tensorboard_has_the_parts_as_curves_that_end_as_the_board_does(capitals_run):
    events = EventAccumulator(str(capitals_run.folder))
    events.Reload()
    rows = {row["name"]: row for row in json.loads((capitals_run.folder / "board.json").read_text())["rows"]}
    start = "val/exact_match - "
    names = {tag.removeprefix(start) for tag in events.Tags()["scalars"] if tag.startswith(start)}
    assert names == set(rows) - {"trained pairs", "all held-out pairs"}
    assert any(0 < rows[name]["exact_match"]["value"] < 1 for name in names)
    best = capitals_run.metrics["best_epoch"]
    for name in names:
        curve = events.Scalars(start + name)
        assert len(curve) == 8
        assert curve[best - 1].value == pytest.approx(rows[name]["exact_match"]["value"], abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("file", ["nq_open_dev", "korean_chatbot"])
def test_the_rows_of_real_files(file, tmp_path):
    path = SHARED_DATA / f"{file}.jsonl.gz"
    if not path.exists():
        pytest.skip("the real files of pairs are not here")
    data = DataConfig(path=str(path), packing=True, row_tokens=256, batch_size=16, train_pairs=2000)
    config = small_config(data=data, trainer__max_epochs=1, evaluation__max_pairs=200)
    answers, rows = check_rows(train(config, tmp_path / "run").folder)
    assert rows["validation", "all held-out pairs"]["n"] == 200
    assert len({a["relation"] for a in answers}) >= 3


def test_golden_questions_are_replayed_and_a_difference_is_named(learnt_run, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(learnt_run.folder / "model", folder)
    records = json.loads((folder / "golden.json").read_text())
    assert len(records) == 4 + 2 + 1
    assert any(record["answer_ids"] for record in records)
    Answerer.load(folder)

    template = folder / "prompt_template.json"
    changed = json.loads(template.read_text()) | {"prompt": "{question} "}
    template.write_text(json.dumps(changed))
    with pytest.raises(
        UserError, match=r"the prompt of '.*' has different ids .* from position \d+: \[\d+\] instead of"
    ):
        Answerer.load(folder)
    shutil.copy(learnt_run.folder / "model" / "prompt_template.json", template)

    first = next(record for record in records if record["answer_ids"])
    first["answer_ids"] = first["answer_ids"][:-1]
    (folder / "golden.json").write_text(json.dumps(records))
    with pytest.raises(UserError, match=r"the answer to '.*' is '.*'; when the model was saved it was '.*'"):
        Answerer.load(folder)
    (folder / "golden.json").write_text("{")
    with pytest.raises(UserError, match=r"golden.json: is damaged"):
        Answerer.load(folder)


def test_an_explanation_says_whether_a_question_was_trained():
    explainer = Explainer(TrainedPairs(QUESTIONS, ANSWERS), None)
    (found,) = explainer.explain(["what is the capital of france"], AnswerMode.free)
    assert found.question_is == "trained"
    assert (found.nearest[0].question, found.nearest[0].answer) == (QUESTIONS[0], "Paris")
    similarities = [each.similarity for each in found.nearest]
    assert 1 >= similarities[0] > similarities[1] > similarities[2] >= 0
    found, new = explainer.explain(["What is the capital of Francia?", "Why?"], AnswerMode.free)
    assert found.question_is == "near-duplicate of a trained question"
    assert new.question_is == "not trained"
