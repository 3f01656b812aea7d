"""Training on rewritten questions: the same in every process, never a contradiction, always within the rows."""

import itertools
import json
import pickle
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qa_lm.batch import Batch
from qa_lm.config.schema import DataConfig, TokenizerConfig
from qa_lm.data.augment import Rewriter
from qa_lm.data.batches.datamodule import PairsDataModule
from qa_lm.data.batches.rewritten import RewrittenPrompts, fitting
from qa_lm.data.encoding import PromptTemplate
from qa_lm.data.pairs import Pair
from qa_lm.data.tokenizer import train_bpe
from tests.conftest import table_of

BPE = TokenizerConfig("bpe", vocab_size=600)
PACKED = {"packing": True, "row_tokens": 64, "batch_size": 4}


def capitals(context: int | None = 256, **changes: Any) -> PairsDataModule:
    settings: dict[str, Any] = {
        "path": "capitals",
        "shuffle": True,
        "train_pairs": 300,
        "batch_size": 4,
        "augment": 0.6,
    } | changes
    data = PairsDataModule.from_config(DataConfig(**settings), BPE, context, recall_pairs=64)
    data.setup("fit")
    return data


def texts(data: PairsDataModule, batches: Iterable[Batch]) -> tuple[dict[int, str], dict[int, list[int]]]:
    """Text of each pair, and ids of its answer, by its index."""
    whole, answers = {}, {}
    for batch in batches:
        for number, index in enumerate(batch.indices.tolist()):
            here = batch.pair == number
            whole[index] = data.prepared.tokenizer.decode(batch.inputs[here].tolist())
            answers[index] = batch.targets[here & batch.in_answer].tolist()
    return whole, answers


def epoch_of(data: PairsDataModule, epoch: int) -> list[Batch]:
    loader = data.train_dataloader()
    data.train_rows.set_epoch(epoch)
    return list(loader)


@pytest.mark.parametrize("settings", [PACKED, {}], ids=["packed", "padded"])
def test_workers_and_processes_change_nothing(settings, monkeypatch):
    alone, workers = capitals(**settings), capitals(**settings, workers=2)
    for epoch in (0, 3):
        batches = epoch_of(alone, epoch)
        for one, other in zip(batches, epoch_of(workers, epoch), strict=True):
            assert all(torch.equal(a, b) for a, b in zip(one[:6], other[:6], strict=True))
        shared: dict[int, str] = {}
        for rank in range(2):
            data = capitals(**settings | {"batch_size": 2})
            monkeypatch.setattr(data, "_processes", lambda rank=rank: (rank, 2))
            shared |= texts(data, epoch_of(data, epoch))[0]
        assert shared == texts(alone, batches)[0]


@pytest.mark.parametrize("settings", [PACKED, {}], ids=["packed", "padded"])
def test_epochs_differ_in_questions_but_not_in_answers_and_number_of_rows(settings):
    plain, data = capitals(**settings, augment=0.0), capitals(**settings)
    as_they_stand, answers = texts(plain, epoch_of(plain, 0))
    sides = []
    for epoch in range(3):
        batches = epoch_of(data, epoch)
        assert len(batches) == len(data.train_dataloader())
        assert not settings or {batch.inputs.shape for batch in batches} == {(4, 64)}
        whole, same_answers = texts(data, batches)
        assert same_answers == answers
        assert 0.45 < np.mean([whole[index] != text for index, text in as_they_stand.items()]) < 0.65
        sides.append(whole)
    assert sides[0] != sides[1] != sides[2]
    for loader, other in zip(data.val_dataloader(), plain.val_dataloader(), strict=True):
        assert texts(data, loader) == texts(plain, other)
    assert texts(data, data.predict_dataloader()) == texts(plain, plain.predict_dataloader())


def test_an_epoch_that_is_resumed_goes_on_with_the_same_questions():
    whole, resumed = capitals(**PACKED), capitals(**PACKED)
    resumed.begin_at(2, 5)
    for one, other in zip(epoch_of(whole, 2)[5:], epoch_of(resumed, 2), strict=True):
        assert torch.equal(one.inputs, other.inputs)


def test_a_question_that_does_not_fit_into_the_context_stays_as_it_is():
    plain = capitals(augment=0.0)
    longest = int(plain.examples.lengths(np.arange(1358)).max())
    as_they_stand, _ = texts(plain, epoch_of(plain, 0))
    data = capitals(context=longest)
    batches = epoch_of(data, 0)
    whole, _ = texts(data, batches)
    assert max(batch.inputs.shape[1] for batch in batches) <= longest
    assert whole != as_they_stand
    assert max(batch.inputs.shape[1] for batch in epoch_of(capitals(), 0)) > longest


@given(st.data(), st.lists(st.integers(1, 4), min_size=1, max_size=6))
def test_grown_questions_fit_and_as_many_as_possible_are_kept(data, sizes):
    row_of = np.repeat(np.arange(len(sizes)), sizes)
    growth = np.array(data.draw(st.lists(st.integers(-3, 5), min_size=len(row_of), max_size=len(row_of))))
    room = np.array(data.draw(st.lists(st.integers(0, 6), min_size=len(sizes), max_size=len(sizes))))
    fits = fitting(growth, row_of, room)
    for row, free in enumerate(room):
        here = row_of == row
        assert growth[here & fits].sum() <= free
        choices = itertools.product([False, True], repeat=int(here.sum()))
        assert fits[here].sum() == max(sum(each) for each in choices if growth[here][list(each)].sum() <= free)


class Shout(Rewriter):
    """Rewrites every question in the same way."""

    def rewrite(self, question: str, epoch: int) -> str:
        return question.replace("colour", "color").upper()


def shouted(questions: list[str], folder: Path) -> list[int]:
    """Which of the questions are rewritten."""
    pairs = [Pair(question, f"answer {number}") for number, question in enumerate(questions)]
    tokenizer = train_bpe(questions, 300)
    table = table_of(pairs, folder)
    rewritten = RewrittenPrompts(table, tokenizer, PromptTemplate("{question}\n"), Shout(0, 1.0), 256)
    prompts = rewritten.prompts(np.arange(len(pairs)), np.zeros(len(pairs), np.int64))
    for place, ids in prompts.items():
        assert tokenizer.decode(ids) == questions[place].replace("colour", "color").upper() + "\n"
    return sorted(prompts)


@pytest.mark.parametrize(
    ("questions", "rewritten"),
    [
        (["what colour is it?", "who is it?"], [0, 1]),
        (["what colour is it?", "What color is it"], [1]),  # the first would ask the second
        (["who is it?", "Who is it", "why?"], [2]),  # they differ only in case and marks, and have different answers
        (["dé où 가 🤷?", "mais non"], [0, 1]),  # characters that the vocabulary has only as bytes
    ],
)
def test_a_rewritten_question_is_never_that_of_another_pair(questions, rewritten, tmp_path):
    assert shouted(questions, tmp_path) == rewritten


def test_a_prompt_with_several_columns_stays_as_it_is(tmp_path):
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps({"context": f"c{i}", "question": "q?", "answer": "a"}) + "\n" for i in range(9)))
    for prompt, rewritten in (("{question}: ", True), ("{context} {question}", False)):
        config = DataConfig(path=str(path), prompt=prompt, augment=1.0, split="shuffle", cache="off")
        data = PairsDataModule.from_config(config, BPE)
        data.setup()
        assert (data.train_collate.rewritten is not None) == rewritten


def test_a_worker_process_opens_the_table_again(tmp_path):
    table = table_of([Pair(f"q{i}", "a") for i in range(5000)], tmp_path)
    assert table.questions(np.array([4999, 0, 4096, 0])) == ["q4999", "q0", "q4096", "q0"]
    assert pickle.loads(pickle.dumps(table)).questions(np.array([7])) == ["q7"]
