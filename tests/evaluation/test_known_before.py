"""What a pretrained model knew before training: teacher forcing equals generation, and every part counts it."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from qa_lm.commands.evaluate import main as evaluate
from qa_lm.config.schema import DataConfig, ModelConfig, TokenizerConfig, TrainConfig
from qa_lm.data.encoding import Example, PromptTemplate, encode_pairs, encode_prompts
from qa_lm.data.pairs import Pair
from qa_lm.data.prepare import PreparedData, prepare
from qa_lm.evaluation.before import teacher_forcing
from qa_lm.evaluation.before.general import contains, general_questions
from qa_lm.evaluation.before.known_before import KnownBefore
from qa_lm.evaluation.before.teacher_forcing import Prefix, force
from qa_lm.evaluation.before.worked_examples import NOT_ASKED, AnswerEnd, draw_examples, later, set_of_each
from qa_lm.inference.answerer import Answerer
from qa_lm.inference.drafts import Draft
from qa_lm.inference.greedy import greedy_answers
from qa_lm.ledger.file import read_summary
from qa_lm.modeling.causal_lm import build_causal_lm
from qa_lm.reporting.run.report import write_report
from qa_lm.reporting.run.table import answers_table
from qa_lm.training.finetune import before as before_training
from qa_lm.training.train import train
from tests.conftest import small_config

PAIRS = [Pair(f"What is the code of item {number}?", str(37 * number % 97)) for number in range(20)]
PLAIN, AFTER_EXAMPLES = PAIRS[:4], PAIRS[4:8]
"""What the pretrained model knows by the plain prompt, and only after worked examples; the rest it does not know."""
GENERAL = [Pair(each["question"], each["answer"]) for each in general_questions()[:5]]
SEED = 42


def written(pairs: list[Pair], path: Path) -> str:
    path.write_text("".join(json.dumps({"question": pair.question, "answer": pair.answer}) + "\n" for pair in pairs))
    return str(path)


def data_of(path: str, validation: str) -> DataConfig:
    return DataConfig(path=path, validation_path=validation, split="shuffle", packing=True, row_tokens=256)


class Started(NamedTuple):
    base: Path
    """The folder of the pretrained model."""
    data: DataConfig
    """Twelve pairs to train, of which it knows some, and eight held out, of which it knows some."""


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Started:
    folder = tmp_path_factory.mktemp("pretrained")
    train_pairs = [*PLAIN[:2], *AFTER_EXAMPLES[:2], *PAIRS[8:16]]
    held_out = [*PLAIN[2:], *AFTER_EXAMPLES[2:], *PAIRS[16:]]
    data = data_of(written(train_pairs, folder / "train.jsonl"), written(held_out, folder / "held_out.jsonl"))
    prepared = prepare(data, TokenizerConfig(kind="gpt2"), 1024)
    sets = draw_examples(prepared, 1024, SEED)
    texts = ["".join(f"{q} {a}\n\n" for q, a, *_ in prepared.table.pairs(each.pairs)) for each in sets]
    places = np.arange(len(prepared.table))
    chosen = dict(zip(prepared.table.questions(places), set_of_each(prepared, sets, places), strict=True))
    shown = [Pair(texts[chosen[pair.question]] + pair.question, pair.answer) for pair in AFTER_EXAMPLES]
    known = written([*PLAIN, *shown, *GENERAL], folder / "known.jsonl")
    config = small_config(
        data=DataConfig(path=known, split="shuffle", train_fraction=1.0, packing=True, row_tokens=256, batch_size=2),
        model=ModelConfig(hidden_size=128, layers=2, heads=4, context=512),
        tokenizer__vocab_size=400,
        optimizer__lr=3e-3,
        trainer__max_epochs=150,
        early_stopping__patience=None,
    )
    assert train(config, folder / "base").metrics["recall"] == 1
    return Started(folder / "base" / "model", data)


def finetuning(started: Started, **changes: Any) -> TrainConfig:
    return small_config(
        data=started.data,
        seed=SEED,
        model=ModelConfig(path=str(started.base), architecture=None, hidden_size=None, layers=None, heads=None),
        tokenizer=TokenizerConfig(kind="model"),
        **{"early_stopping__patience": None, "trainer__max_epochs": 6, "optimizer__lr": 1e-3} | changes,
    )


@pytest.fixture(scope="module")
def finetuned(started: Started, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose fine-tuning destroys much of what was there, in a model that is the last one."""
    folder = tmp_path_factory.mktemp("finetuned") / "run"
    config = finetuning(started, optimizer__lr=3e-3, trainer__max_epochs=25)
    config.export_weights = config.export_weights.last
    train(config, folder)
    return folder


def prepared_of(started: Started) -> PreparedData:
    return prepare(started.data, TokenizerConfig(kind="folder", path=str(started.base)), 512)


def written_answers(answerer: Answerer, prompts: list[list[int]]) -> list[list[int]]:
    """What the model writes, up to EOS."""
    eos_id = answerer.tokenizer.eos_id
    found = greedy_answers(answerer.model, [Draft(prompt, []) for prompt in prompts], eos_id, 12, check=False)
    return [each.ids + [eos_id] * each.stopped for each in found]


def generated(answerer: Answerer, prepared: PreparedData) -> tuple[set[str], set[str]]:
    """The questions that the model answers by generation: with its prompt, and after worked examples."""
    pairs = prepared.table.pairs(np.arange(len(prepared.table)))
    prompts = encode_prompts([pair.question for pair in pairs], answerer.tokenizer, answerer.template)
    answers = [each.answer_ids for each in encode_pairs(pairs, answerer.tokenizer, answerer.template)]
    sets = draw_examples(prepared, 512, SEED)
    after = set_of_each(prepared, sets, np.arange(len(pairs)))
    longer = [sets[number].ids + prompt for number, prompt in zip(after, prompts, strict=True)]
    end = AnswerEnd(answerer.tokenizer, answerer.template)
    plain = {
        pair.question
        for pair, ids, answer in zip(pairs, written_answers(answerer, prompts), answers, strict=True)
        if ids == answer
    }
    shown = set()
    for pair, ids, answer in zip(pairs, written_answers(answerer, longer), answers, strict=True):
        until = next((place for place, token in enumerate(ids) if token in end), len(ids))
        if until < len(ids) and ids[:until] == answer[:-1]:
            shown.add(pair.question)
    return plain, shown


def test_known_before_is_what_generation_gives(started, finetuned):
    prepared = prepared_of(started)
    plain, shown = generated(Answerer.load(started.base), prepared)
    assert {pair.question for pair in PLAIN} <= plain  # the fixture works
    assert {pair.question for pair in AFTER_EXAMPLES} <= shown - plain
    assert len(plain | shown) < len(PAIRS)
    known = KnownBefore.load(finetuned, prepared)
    assert known is not None
    questions = np.array(prepared.table.questions(known.pairs))
    assert set(questions[known.own_prompt]) == plain
    assert set(questions[known.after_examples == 1]) == shown
    assert not (known.after_examples == NOT_ASKED).any()
    assert set(questions[known.known]) == plain | shown


def test_the_board_counts_what_became_of_it(started, finetuned):
    plain, shown = generated(Answerer.load(started.base), prepared_of(started))
    answers = [json.loads(line) for line in (finetuned / "answers.jsonl").read_text().splitlines()]
    board = json.loads((finetuned / "board.json").read_text())
    for split, name in (("train", "trained pairs"), ("validation", "all held-out pairs")):
        (row,) = (row for row in board["rows"] if row["name"] == name)
        asked = [(each["question"] in plain | shown, each["exact_match"]) for each in answers if each["split"] == split]
        counts = {"known_and_kept": (True, True), "known_and_lost": (True, False)}
        counts |= {"taught": (False, True), "not_learnt": (False, False)}
        assert {name: row["before"][name] for name in counts} == {
            name: asked.count(kind) for name, kind in counts.items()
        }
        assert row["before"]["untrained_model"]["value"] == sum(known for known, _ in asked) / len(asked)
    assert [each["known_before"] for each in answers] == [each["question"] in plain | shown for each in answers]


def test_destroyed_knowledge_is_reported_as_lost(finetuned):
    board = json.loads((finetuned / "board.json").read_text())
    rows = {row["name"]: row["before"] for row in board["rows"]}
    assert rows["trained pairs"]["taught"] >= 6
    assert rows["all held-out pairs"]["known_and_lost"] >= 3
    general = board["general"]
    lines = [json.loads(line) for line in (finetuned / "general_answers.jsonl").read_text().splitlines()]
    kinds = [(each["right_before"], each["right_after"]) for each in lines]
    assert (general["n"], general["right_before"]) == (60, sum(before for before, _ in kinds))
    assert all(before for before, _ in kinds[:5])
    assert general["lost"] == kinds.count((True, False))
    assert general["lost"] >= 3
    worst = general["worst"]
    assert len(worst) == 10
    assert all(each["right_before"] and not each["right_after"] for each in worst[: general["lost"]])
    falls = [each["fall"] for each in worst[general["lost"] :]]
    assert falls == sorted(falls, reverse=True)


def test_no_sentence_claims_what_was_known(finetuned):
    board = json.loads((finetuned / "board.json").read_text())
    rows = {row["name"]: row["before"] for row in board["rows"]}
    trained, held_out = rows["trained pairs"], rows["all held-out pairs"]
    terminal = " ".join(answers_table(finetuned).split())
    right = trained["known_and_kept"] + trained["taught"]
    memorised = f"Memorised (recall): {right} of 12 training questions answered word for word, of which"
    assert f"{memorised} {trained['known_and_kept']} w" in terminal
    known = held_out["known_and_kept"] + held_out["known_and_lost"]
    assert f"4 of 12 trained pairs and {known} of 8 held-out pairs; it answers" in terminal
    assert "untrained model" in terminal
    page = write_report(finetuned)
    assert "baseline:<br>untrained<br>model" in page.read_text()
    markdown = page.with_suffix(".md").read_text()
    assert "| baseline: untrained model |" in markdown
    assert "has memorised" not in markdown
    assert "## What it knew before training" in markdown
    assert "Of 60 general questions" in markdown


def test_the_ledger_has_epoch_0(started, finetuned):
    known = KnownBefore.load(finetuned, prepared_of(started))
    assert known is not None
    ledger = pq.read_table(finetuned / "ledger.parquet").to_pylist()
    rows = known.rows(np.arange(12))
    assert [each["known_before"] for each in ledger] == known.known[rows].tolist()
    assert [each["exact_before"] for each in ledger] == known.own_prompt[rows].tolist()
    assert [each["loss_before"] for each in ledger] == known.losses[rows].tolist()
    assert read_summary(finetuned)["known_before"] == known.known[rows].sum() == 4


def test_evaluate_splits_a_run_in_the_same_way(finetuned, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert evaluate([str(finetuned), "--out", "out"]) == 0
    of_run, again = (
        json.loads((folder / "board.json").read_text())["rows"] for folder in (finetuned, tmp_path / "out")
    )
    assert [row["before"] for row in again] == [row["before"] for row in of_run]
    assert "known_before" in (tmp_path / "out" / "answers.jsonl").read_text()


def test_a_resumed_run_keeps_what_the_first_start_found(started, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "run"
    train(finetuning(started, trainer__max_epochs=1), folder)
    assert "before training: it knows 4 of 12 training pairs and" in capsys.readouterr().out
    known = (folder / "known_before.parquet").read_bytes()
    general = [each["before"] for each in map(json.loads, (folder / "general_answers.jsonl").read_text().splitlines())]
    with monkeypatch.context() as patched:
        patched.setattr(before_training, "ask_before", None)
        patched.setattr(before_training, "ask_general", None)
        train(finetuning(started, trainer__max_epochs=2, resume=str(folder)), folder)
    assert (folder / "known_before.parquet").read_bytes() == known
    lines = [json.loads(line) for line in (folder / "general_answers.jsonl").read_text().splitlines()]
    assert [each["before"] for each in lines] == general
    assert all(each["after"] is not None for each in lines)
    assert "before" in json.loads((folder / "board.json").read_text())["rows"][0]
    # Without the file, the model that the run started from is asked again, not the trained one.
    (folder / "known_before.parquet").write_bytes(b"damaged")
    train(finetuning(started, trainer__max_epochs=3, resume=str(folder)), folder)
    assert (folder / "known_before.parquet").read_bytes() == known


def test_asking_does_not_change_training(started, tmp_path, monkeypatch):
    train(finetuning(started, trainer__max_epochs=1, model__dropout=0.1), tmp_path / "asked")
    before = before_training.Before(*_nothing_known(prepared_of(started)))
    monkeypatch.setattr("qa_lm.training.train.ask_untrained", lambda *_: before)
    train(finetuning(started, trainer__max_epochs=1, model__dropout=0.1), tmp_path / "not")
    one, other = (torch.load(tmp_path / name / "checkpoints" / "last.ckpt")["state_dict"] for name in ("asked", "not"))
    assert all(torch.equal(one[name], other[name]) for name in one)


def _nothing_known(prepared: PreparedData) -> tuple[Any, ...]:
    pairs = np.arange(len(prepared.table))
    nothing = np.zeros(len(pairs), bool)
    known = KnownBefore(pairs, nothing, nothing.astype(np.int8), np.zeros(len(pairs), np.float32))
    answer = before_training.GeneralAnswer("q", "a", "b", False, [1], -1.0)
    return known, [answer], prepared.tokenizer, prepared.template


def test_a_run_from_scratch_has_none_of_it(small_run):
    assert not (small_run.folder / "known_before.parquet").exists()
    assert not (small_run.folder / "general_answers.jsonl").exists()
    assert "before" not in (small_run.folder / "board.json").read_text()
    assert "known_before" not in (small_run.folder / "answers.jsonl").read_text()
    assert not [name for name in pq.read_schema(small_run.folder / "ledger.parquet").names if "before" in name]
    assert "before training" not in answers_table(small_run.folder)


@pytest.mark.parametrize("architecture", ["gpt2", "llama", "mistral"])
def test_continuing_from_the_cache_equals_encoding_the_whole_text(architecture, monkeypatch):
    torch.manual_seed(0)
    model = build_causal_lm(architecture, 60, 32, 2, 2, 128, 0.0, 0).eval()
    rng = np.random.default_rng(1)
    prefix = rng.integers(1, 60, 23).tolist()
    lengths = rng.integers(3, 17, 40)
    examples = [Example(rng.integers(1, 60, n).tolist(), int(rng.integers(1, n))) for n in lengths]
    monkeypatch.setattr(teacher_forcing, "POSITIONS", 64)  # several batches
    found = Prefix(model, prefix).force(examples)
    whole = force(model, [Example(prefix + each.ids, len(prefix) + each.prompt_tokens) for each in examples])
    assert [each.greedy for each in found] == [each.greedy for each in whole]
    assert [each.loss for each in found] == pytest.approx([each.loss for each in whole], rel=1e-4)
    alone = force(model, examples)
    assert [each.greedy for each in found] != [each.greedy for each in alone]  # the prefix counts
    assert [len(each.greedy) for each in found] == [len(each.answer_ids) for each in examples]


def test_memory_of_a_batch_is_bounded(monkeypatch):
    model = build_causal_lm("llama", 60, 32, 2, 2, 128, 0.0, 0).eval()
    prefix = Prefix(model, [1] * 20)
    examples = [Example([2, 3, 4, 5], 2)] * 10
    per_row = (20 + 4) * 2 * 2 * 32 * 4  # positions, layers, keys and values, width, bytes
    monkeypatch.setattr(teacher_forcing, "CACHE_BYTES", 3 * per_row)
    assert [len(batch) for batch in prefix._batches(examples)] == [3, 3, 3, 1]


def test_no_pair_is_asked_after_its_own_question_or_fact():
    data = DataConfig(path="capitals", split="phrasing_and_fact", train_fraction=0.9)
    prepared = prepare(data, TokenizerConfig(kind="gpt2"), 512)
    table = prepared.table
    sets = draw_examples(prepared, 512, SEED)
    assert [len(each.pairs) for each in sets] == [4, 4]
    assert {int(place) for each in sets for place in each.pairs} <= set(prepared.split.train.tolist())
    assert [each.ids for each in draw_examples(prepared, 512, SEED)] == [each.ids for each in sets]
    assert [each.ids for each in draw_examples(prepared, 512, SEED + 1)] != [each.ids for each in sets]
    places = np.arange(len(table))
    chosen = set_of_each(prepared, sets, places)
    assert {*chosen.tolist()} == {0, 1}
    for column in ("normalised_key", "group_key", "answer_key"):
        keys = table.numbers(column)
        for place, number in zip(places, chosen, strict=True):
            assert keys[place] not in keys[sets[number].pairs]


def test_too_few_trained_pairs_leave_no_examples():
    data = DataConfig(path="tutorial", split="shuffle", train_pairs=1)
    prepared = prepare(data, TokenizerConfig(kind="gpt2"), 512)
    sets = draw_examples(prepared, 512, SEED)
    assert [each.pairs.tolist() for each in sets] == [prepared.split.train.tolist()]
    assert set_of_each(prepared, sets, prepared.split.train).tolist() == [NOT_ASKED]


def test_what_ends_an_answer_after_examples(gpt2, template):
    end = AnswerEnd(gpt2, template)
    ids = {text: gpt2.encode([text])[0] for text in ("\n", "\n\n", " Paris", ".", " ")}
    assert all(len(each) == 1 for each in ids.values())
    assert [ids[text][0] in end for text in ids] == [True, True, False, False, False]
    assert gpt2.eos_id in end
    chat = AnswerEnd(gpt2, SimpleNamespace(chat="a turn"))  # type: ignore[arg-type]
    assert (gpt2.eos_id in chat, ids["\n"][0] in chat) == (True, False)


def test_a_later_turn_repeats_no_system_turn(gpt2):
    eos = gpt2.eos_id
    chat: Any = SimpleNamespace(chat="a turn", before=(7, 8, eos, 9, 10), after=(11,))
    first = Example([7, 8, eos, 9, 10, 100, 11, 200, eos], 7)
    assert later(first, gpt2, chat) == Example([9, 10, 100, 11, 200, eos], 4)
    plain: Any = SimpleNamespace(chat=None, before=(7,))
    assert later(Example([7, 100, 200, eos], 2), gpt2, plain) == Example([100, 200, eos], 1)
    assert later(Example([100, 200, eos], 1), gpt2, PromptTemplate()) == Example([100, 200, eos], 1)


def test_a_general_answer_is_right_if_it_contains_the_right_one_as_words():
    assert contains("The capital is the Pacific Ocean.", ["Pacific ocean"])
    assert contains("A spider has eight legs", ["8", "eight"])
    assert not contains("In 1066a", ["1066"])
    asked = general_questions()
    assert len({each["question"] for each in asked}) == 60
    assert all(contains(f"It is {each['answer']}.", [each["answer"]]) for each in asked)
