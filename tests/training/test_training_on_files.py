"""Runs on files of one's own, by what they leave."""

import csv
import json
from collections import Counter

import pytest
import torch

from qa_lm.config.enums import LossWeighting, OptimizerKind, Weights
from qa_lm.data.batches.batching import PackedRows, Row
from qa_lm.inference.answerer import Answerer
from qa_lm.reporting.run.table import answers_table
from qa_lm.training.train import train
from tests.conftest import small_config, weights
from tests.training.test_training import rows_of


def write_pairs(path, pairs):
    path.write_text("".join(json.dumps({"question": q, "answer": a}, ensure_ascii=False) + "\n" for q, a in pairs))
    return str(path)


def file_config(path, **changes):
    return small_config(data__path=path, data__split="question", data__shuffle=True, **changes)


def test_korean_emoji_and_combining_marks_are_learnt_and_answered(tmp_path):
    pairs = [
        ("12시 땡!", "하루가 또 가네요."),
        ("놀러 가고 싶어", "🏖️ 여행은 언제나 좋죠."),
        ("Où est le café\u0301?", "Là-bas → ☕"),
    ]
    pairs += [
        ("PPL 심하네", "눈살이 찌푸려지죠."),
        ("क्या हाल है?", "ठीक है\u200d!"),
        ("<|endoftext|>?", "그냥 <|endoftext|> 글자예요."),
    ]
    config = file_config(write_pairs(tmp_path / "pairs.jsonl", pairs * 4), data__split_seed=1)
    config.data.split, config.data.packing, config.data.batch_size = "shuffle", True, 1
    config.trainer["max_epochs"], config.early_stopping.patience, config.export_weights = 30, None, Weights.last
    config.optimizer.kind, config.optimizer.lr, config.optimizer.betas = OptimizerKind.muon, 5e-3, (0.9, 0.95)
    result = train(config, tmp_path / "run")
    assert result.metrics["recall"] == 1
    answers = Answerer.load(result.folder).answer([question for question, _ in pairs], 64)
    assert [(answer.answer, answer.stopped) for answer in answers] == [(answer, True) for _, answer in pairs]


def test_lightning_gives_each_epoch_its_own_rows(tmp_path, monkeypatch):
    epochs: list[tuple[int, list[Row]]] = []
    rows_of_epoch = PackedRows.__iter__

    def recorded(self):
        rows = list(rows_of_epoch(self))
        if self.shuffle:
            epochs.append((self.epoch, rows))
        return iter(rows)

    monkeypatch.setattr(PackedRows, "__iter__", recorded)
    path = write_pairs(tmp_path / "pairs.jsonl", [(f"q{i}", f"a{i}") for i in range(60)])
    train(file_config(path, data__packing=True, data__row_tokens=64), tmp_path / "run")
    # Batches and steps are measured before training, on epoch 0.
    assert [epoch for epoch, _ in epochs] == [0, 0, 0, 1, 2]
    assert epochs[0] == epochs[1] == epochs[2]
    orders = [[row.examples for row in rows] for _, rows in epochs]
    assert orders[2] != orders[3] != orders[4]


def test_a_packed_step_trains_what_a_padded_one_does(tmp_path):
    """All pairs in one step: the same loss and the same weights after it, whatever the rows."""
    path = write_pairs(tmp_path / "pairs.jsonl", [(f"q{i}?", f"a{i} " * (1 + i % 5)) for i in range(40)])
    results = []
    for packing, row_tokens in ((False, 256), (True, 64), (True, 256)):
        config = file_config(path, data__packing=packing, data__row_tokens=row_tokens, data__batch_size=1000)
        config.loss_weighting = LossWeighting.token
        results.append(train(config, tmp_path / f"{packing}-{row_tokens}"))
    for other in results[1:]:
        for name, tensor in weights(results[0]).items():
            torch.testing.assert_close(weights(other)[name], tensor, atol=1e-4, rtol=1e-3)
        for row, expected in zip(rows_of(other.folder), rows_of(results[0].folder), strict=True):
            assert float(row["train_loss"]) == pytest.approx(float(expected["train_loss"]), abs=1e-5)
            assert float(row["val_loss"]) == pytest.approx(float(expected["val_loss"]), abs=1e-5)


def test_every_accepted_answer_counts_and_test_pairs_are_asked(tmp_path):
    pairs = [{"question": f"q{i}?", "answer": ["yes", "no"]} for i in range(20)]
    for name in ("train", "test"):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    swapped = [{"question": pair["question"], "answer": ["no", "yes"]} for pair in pairs[:6]]
    swapped += [{"question": "q1?", "answer": "no"}]
    (tmp_path / "test.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in swapped))
    config = file_config(str(tmp_path / "train.jsonl"), data__test_path=str(tmp_path / "test.jsonl"))
    config.trainer["max_epochs"], config.early_stopping.patience, config.data.batch_size = 30, None, 4
    result = train(config, tmp_path / "run")
    assert result.metrics["recall"] == result.metrics["val_exact_match"] == 1
    assert result.metrics["test_exact_match"] == pytest.approx(6 / 7)  # "yes" is accepted in six of seven
    assert [answer.exact_match for answer in result.answers if answer.split == "test"].count(False) == 1


def test_the_run_folder_says_which_pair_was_held_out_and_why(tmp_path):
    groups = [{"question": f"q{i} {w}?", "answer": f"a{i}", "group": f"g{i}"} for i in range(10) for w in "abc"]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in groups))
    config = file_config(str(tmp_path / "pairs.jsonl"))
    config.data.split = "phrasing_and_fact"
    result = train(config, tmp_path / "run")
    with (tmp_path / "run" / "split.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["line"]) for row in rows] == list(range(1, 31))
    counts = Counter((row["split"], row["held_out"]) for row in rows)
    phrasing, fact = "unseen phrasing of a trained fact", "unseen fact"
    assert counts == {("train", ""): 16, ("validation", phrasing): 8, ("validation", fact): 6}
    assert set(result.metrics["exact_match_by_reason"]) == {phrasing, fact}
    text = answers_table(tmp_path / "run")
    assert f"Held out, {phrasing}: " in text
    assert f"Held out, {fact}: " in text
    report = json.loads((tmp_path / "run" / "data_report.json").read_text())
    assert report["held_out"] == {phrasing: 8, fact: 6}


@pytest.mark.slow
def test_the_capitals_are_learnt_carried_over_and_never_guessed(script, tmp_path):
    done = script("train.py", "experiment=capitals", "hydra.run.dir=run", "trainer.accelerator=cpu")
    assert done.returncode == 0, done.stderr
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    by_reason = metrics["exact_match_by_reason"]
    assert metrics["recall"] >= 0.98
    assert by_reason["unseen phrasing of a trained fact"] >= 0.97
    assert by_reason["unseen fact"] <= 0.05
    assert f"Memorised (recall): {round(metrics['recall'] * 1050)} of 1050 training questions" in done.stdout
