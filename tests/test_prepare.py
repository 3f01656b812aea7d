"""From configuration to encoded pairs: the cache, the report, limits, tokenizers."""

import json
import math
import os
import random
import subprocess
import sys
from collections import Counter
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qa_lm.config import BadLines, DataConfig, SplitKind, TokenizerConfig, TooLong
from qa_lm.data import cache
from qa_lm.data.cache import made_folder
from qa_lm.data.checks import percentiles, summary
from qa_lm.data.encoding import encode_prompts
from qa_lm.data.pairs import Pair
from qa_lm.data.repeats import contradictions_in_words, find_repeats, repeats_in_words
from qa_lm.data.store import EncodedPairs, write_store
from qa_lm.data.tokenizer import TextTokenizer, hub_tokenizer, train_bpe
from qa_lm.errors import UserError
from qa_lm.training.prepare import PreparedData, prepare
from tests.conftest import ROOT, SHARED_DATA, encoded, table_of

GPT2 = TokenizerConfig("gpt2")


def jsonl(path: Path, pairs: list[tuple[str, str]]) -> Path:
    path.write_text("".join(json.dumps({"question": q, "answer": a}) + "\n" for q, a in pairs))
    return path


@pytest.fixture
def path(tmp_path):
    words = random.Random(0)
    return jsonl(tmp_path / "pairs.jsonl", [(f"What is {words.randbytes(8).hex()}?", f"It is {i}.") for i in range(50)])


def prepared(path: Path, root: Path | str, tokenizer: TokenizerConfig = GPT2, **changes: Any) -> PreparedData:
    return prepare(DataConfig(path=str(path), cache=str(root), **changes), tokenizer, 256)


# The cache


def folders(root: Path) -> set[str]:
    return {
        f"{kind.name}/{made.name}"
        for kind in root.iterdir()
        for made in kind.iterdir()
        if not made.name.startswith(".")
    }


def test_the_second_time_nothing_is_made(path, tmp_path, monkeypatch):
    root = tmp_path / "cache"
    bpe = TokenizerConfig("bpe", vocab_size=300)
    first = prepared(path, root, bpe, split=SplitKind.near)
    made = folders(root)
    assert {name.split("/")[0] for name in made} == {"pairs", "near", "bpe", "encoded"}

    def never(*arguments):
        raise AssertionError("made again")

    for name in ("write_table", "write_store", "train_bpe"):
        monkeypatch.setattr(f"qa_lm.training.prepare.{name}", never)
    monkeypatch.setattr("qa_lm.data.near.near_groups", never)
    second = prepared(path, root, bpe, split=SplitKind.near)
    assert folders(root) == made
    assert (second.split.train == first.split.train).all()
    assert second.examples.examples(second.split.train) == first.examples.examples(first.split.train)
    assert second.report == first.report


def test_what_changes_the_ids_makes_another_store(path, tmp_path):
    root = tmp_path / "cache"
    prepared(path, root)
    counts = [len(folders(root))]
    for change in (
        lambda: prepared(path, root, split_seed=1),  # another split of the same pairs: nothing new
        lambda: prepared(path, root, TokenizerConfig("bpe", vocab_size=300)),  # vocabulary, ids
        lambda: prepared(path, root, TokenizerConfig("bpe", vocab_size=300), split_seed=1),  # trained on other pairs
        lambda: prepared(jsonl(path, [("a", "b"), ("c", "d")]), root),  # the same name, another content: texts, ids
    ):
        change()
        counts.append(len(folders(root)))
    assert counts == [2, 2, 4, 6, 8]


def test_a_damaged_store_is_made_again_and_a_half_written_one_never_read(path, tmp_path):
    root = tmp_path / "cache"
    expected = prepared(path, root).examples.examples(np.arange(50))
    (store,) = (root / "encoded").glob("[!.]*")
    for damage in (lambda: (store / "ids.bin").write_bytes(b"xx"), (store / "meta.json").unlink):
        damage()
        assert prepared(path, root).examples.examples(np.arange(50)) == expected

    def dies(folder: Path) -> dict[str, Any]:
        (folder / "ids.bin").write_bytes(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        made_folder(root / "encoded", "key", dies)
    assert not (root / "encoded" / "key").exists()
    assert [name for name in os.listdir(root / "encoded") if not name.endswith(".lock")] == [store.name]


def _make_slowly(root: Path, number: int) -> str:
    def make(folder: Path) -> dict[str, Any]:
        with (root / "made").open("a") as file:
            file.write(f"{number}\n")
        (folder / "data").write_text("x" * 1_000_000)
        return {"by": number}

    return made_folder(root / "kind", "key", make).joinpath("data").read_text()[:1]


def test_two_processes_make_a_folder_once(tmp_path):
    with get_context("fork").Pool(4) as pool:
        assert pool.starmap(_make_slowly, [(tmp_path, number) for number in range(8)]) == ["x"] * 8
    assert len((tmp_path / "made").read_text().splitlines()) == 1


def test_a_process_killed_while_it_writes_leaves_nothing_that_is_read(path, tmp_path):
    root = tmp_path / "cache"
    source = f"""
import os, signal
from pathlib import Path
from qa_lm.data.cache import made_folder
def make(folder):
    (folder / "ids.bin").write_bytes(b"half")
    os.kill(os.getpid(), signal.SIGKILL)
made_folder(Path({str(root)!r}) / "encoded", "key", make)
"""
    assert subprocess.run([sys.executable, "-c", source], check=False).returncode == -9
    assert not (root / "encoded" / "key").exists()
    assert len(list((root / "encoded").glob(".key.*/ids.bin"))) == 1
    made = made_folder(root / "encoded", "key", lambda folder: {"whole": (folder / "a").write_text("a")})
    assert cache.read_meta(made)["whole"] == 1
    assert not list((root / "encoded").glob(".key.*/ids.bin"))


def test_cache_off_and_elsewhere(path, tmp_path, monkeypatch):
    monkeypatch.setenv("QA_LM_CACHE", str(tmp_path / "default"))
    (tmp_path / "default").mkdir()
    (tmp_path / "default" / "gpt2").symlink_to(Path.home() / ".cache" / "qa_lm" / "gpt2")
    for off in ("off", "False"):
        data = prepared(path, off)
        assert len(data.examples) == 50
        folder = data.examples.folder
        assert folder.is_dir()
        del data
    assert {entry.name for entry in (tmp_path / "default").iterdir()} == {"gpt2"}
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"the prepared data cannot be written: .*\n.*data.cache=off"):
        prepared(path, tmp_path / "file")


# Encoding


@given(st.lists(st.tuples(st.text(max_size=20), st.text(max_size=20)), min_size=1, max_size=20), st.integers(2, 60))
@settings(max_examples=100, deadline=None)
def test_a_store_gives_back_what_was_encoded_and_cuts_only_questions(tmp_path_factory, gpt2, template, texts, limit):
    sound = [[text.encode("utf-8", "ignore").decode() or "x" for text in both] for both in texts]
    clean = [Pair(question, answer) for question, answer in sound]
    whole = encoded(clean, gpt2, template, tmp_path_factory.mktemp("store"), 10_000)
    cut = EncodedPairs(whole.folder, limit)
    for index, pair in enumerate(clean):
        (example,) = whole.examples(np.array([index]))
        assert example.ids[: example.prompt_tokens] == encode_prompts([pair.question], gpt2, template)[0]
        assert gpt2.decode(example.ids) == f"{pair.question} {pair.answer}"
        assert example.ids[-1] == gpt2.eos_id
        if len(example.answer_ids) <= limit:
            (short,) = cut.examples(np.array([index]))
            assert short.answer_ids == example.answer_ids
            assert short.ids == example.ids[-(limit + 1) :]
    assert whole.ends_with(gpt2.eos_id, np.arange(len(clean))).all()


def test_large_vocabularies_need_four_bytes(tmp_path, template, gpt2):
    class Wide(TextTokenizer):
        def __len__(self) -> int:
            return 70_000

        def encode(self, texts: list[str]) -> list[list[int]]:
            return [[65_536 + len(text)] for text in texts]

    wide = Wide(gpt2._tokenizer, gpt2.eos_token)
    folder = made_folder(tmp_path, "wide", lambda at: write_store(at, [[Pair("ab", "c")]], wide, template))
    assert EncodedPairs(folder, 9).examples(np.array([0]))[0].ids == [65_538, 65_538, gpt2.eos_id]


# Too long


def long_pairs(tmp_path: Path) -> Path:
    pairs = [(f"What is {i}?", f"It is {i}.") for i in range(30)]
    pairs += [(f"word {'long ' * 100}{i}?", "yes") for i in range(5)]
    return jsonl(tmp_path / "long.jsonl", pairs)


def test_too_long_pairs_are_refused_with_place_and_remedy(tmp_path):
    path = long_pairs(tmp_path)
    with pytest.raises(
        UserError, match=r"5 of 35 pairs have more than 64 tokens, the first one at .*long.jsonl:31: 'word"
    ) as error:
        prepare(DataConfig(path=str(path)), GPT2, 64)
    needed = int(str(error.value).split("model.context=")[1].split()[0])
    assert prepare(DataConfig(path=str(path)), GPT2, needed)
    with pytest.raises(UserError, match="model.context="):
        prepare(DataConfig(path=str(path)), GPT2, needed - 1)
    with pytest.raises(UserError, match=f"Set data.row_tokens={needed} or more"):
        prepare(DataConfig(path=str(path), packing=True, row_tokens=64), GPT2, needed)


def test_too_long_pairs_are_dropped(tmp_path):
    data = prepare(DataConfig(path=str(long_pairs(tmp_path)), too_long=TooLong.drop), GPT2, 64)
    assert len(data.split.train) + len(data.split.validation) == 30
    assert data.report.too_long["count"] == 5
    assert any("pairs longer than 64 tokens: 5; they are left out" in warning for warning in data.report.warnings)
    assert len(data.split.held_out) == len(data.split.validation)


def test_questions_are_truncated_and_answers_never(tmp_path, gpt2):
    data = prepare(DataConfig(path=str(long_pairs(tmp_path)), too_long=TooLong.truncate_question), GPT2, 64)
    for example in data.examples.examples(np.arange(30, 35)):
        assert len(example.ids) == 65
        assert example.answer_ids == [*gpt2.encode([" yes"])[0], gpt2.eos_id]
        assert gpt2.decode(example.ids[: example.prompt_tokens]).endswith("?")
    assert data.report.lengths["example_tokens"]["p100"] == 64
    path = jsonl(tmp_path / "answers.jsonl", [("a?", "yes"), ("b?", "long " * 100), ("c?", "no")])
    with pytest.raises(UserError, match=r"1 of 3 pairs .*answers.jsonl:2: 'b\?'\nTheir answers alone are too long"):
        prepare(DataConfig(path=str(path), too_long=TooLong.truncate_question), GPT2, 64)


# The report


@given(st.lists(st.integers(0, 300), min_size=1, max_size=200))
def test_percentiles_are_numpys(values):
    expected = np.percentile(values, [0, 1, 5, 25, 50, 75, 95, 99, 100], method="inverted_cdf")
    assert list(percentiles(np.bincount(values)).values()) == expected.astype(int).tolist()


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 3)), min_size=1, max_size=40))
@settings(max_examples=150, deadline=None)
def test_repeats_and_contradictions_are_those_that_counting_finds(tmp_path_factory, rows):
    pairs = [Pair(f"q{q}", f"a{a}") for q, a in rows]
    table = table_of(pairs, tmp_path_factory.mktemp("table"))
    found = find_repeats(table, np.arange(len(pairs)))
    by_pair, by_question = Counter(rows), Counter(q for q, _ in rows)
    answers = {q: {a for p, a in rows if p == q} for q in by_question}
    assert found.questions == len(by_question)
    assert repeats_in_words(table, found)["count"] == len(rows) - len(by_pair)
    report = contradictions_in_words(table, found, 10, 100, 3.0)
    contradicted = [q for q in by_question if len(answers[q]) > 1]
    assert report["questions"] == len(contradicted)
    assert report["pairs"] == sum(by_question[q] for q in contradicted)
    best = sum(max(by_pair[q, a] for a in answers[q]) for q in by_question)
    assert report["best_recall"] == pytest.approx(best / len(rows))
    nats = -sum(math.log(by_pair[row] / by_question[row[0]]) for row in rows)
    assert report["best_answer_loss"] == pytest.approx(nats / 10, abs=1e-12)
    pair_nats = -sum(math.log(by_pair[row] / len(rows)) for row in rows)
    assert report["best_loss"] == pytest.approx((pair_nats - 3.0) / 100)
    for listed in report["listed"]:
        places = [f"pairs:{line}" for line, row in enumerate(rows, start=1) if f"q{row[0]}" == listed["question"]]
        assert listed["places"] == places[:20]
    firsts = [int(listed["places"][0].split(":")[1]) for listed in report["listed"]]
    assert firsts == sorted(firsts)


def test_slices_of_many_keys_find_the_same(tmp_path, monkeypatch):
    generator = np.random.default_rng(0)
    pairs = [Pair(f"q{q}", f"a{a}") for q, a in generator.integers(0, [300, 3], (1000, 2))]
    table = table_of(pairs, tmp_path)
    whole = find_repeats(table, np.arange(1000))
    monkeypatch.setattr("qa_lm.data.repeats.SLICE", 60)
    sliced = find_repeats(table, np.arange(1000))
    assert sliced.answer_nats == pytest.approx(whole.answer_nats)
    sliced.answer_nats, sliced.pair_nats = whole.answer_nats, whole.pair_nats
    assert sliced == whole


def test_the_best_loss_is_that_of_a_model_that_knows_the_file(tmp_path):
    """One question with two answers: no model answers more than half, or loses less than ln 2 per answer."""
    path = jsonl(tmp_path / "coin.jsonl", [("Heads or tails?", side) for side in ("heads", "tails")] * 10)
    data = prepare(DataConfig(path=str(path), split=SplitKind.shuffle), GPT2, 256)
    report = data.report.contradictions
    assert report["best_recall"] == 0.5
    assert report["best_answer_loss"] * data.report.tokens["per_answer"] == pytest.approx(math.log(2))
    assert "no model can answer more than 50.00% of the pairs" in "\n".join(summary(data.report))


def test_the_first_token_is_given_and_so_no_loss(tmp_path):
    """Four pairs told apart by their first token alone: a model that knows them by heart loses nothing."""
    path = jsonl(tmp_path / "first.jsonl", [(word, "yes") for word in ("one", "two", "three", "four")])
    best = prepare(DataConfig(path=str(path)), GPT2, 256).report.contradictions
    assert best["best_loss"] == pytest.approx(0, abs=1e-9)
    path = jsonl(tmp_path / "second.jsonl", [(f"say {word}", "yes") for word in ("one", "two", "three", "four")])
    data = prepare(DataConfig(path=str(path)), GPT2, 256)
    assert data.report.contradictions["best_loss"] * data.report.tokens["per_example"] == pytest.approx(math.log(4))


def test_an_answer_that_several_pairs_accept_counts_for_all_of_them(tmp_path):
    pairs = [Pair("q", "Paris", ("paris",)), Pair("q", "paris", ("Paris", "PARIS")), Pair("q", "Rome"), Pair("r", "x")]
    table = table_of(pairs, tmp_path)
    found = find_repeats(table, np.arange(4))
    assert found.answered_best == 3
    assert contradictions_in_words(table, found, 1, 1, 0.0)["best_recall"] == 0.75
    assert contradictions_in_words(table, find_repeats(table, np.array([0, 1])), 1, 1, 0.0)["best_recall"] == 1


def test_settings_without_an_effect_are_refused(path, tmp_path):
    with pytest.raises(UserError, match="data.columns: has no effect here"):
        prepared(path, tmp_path / "cache", columns=["question", "answer"])


def test_an_example_without_its_eos_stops_the_run(path, tmp_path, monkeypatch):
    root = tmp_path / "cache"
    prepared(path, root)
    (store,) = (root / "encoded").glob("[!.]*")
    ids = np.fromfile(store / "ids.bin", np.uint16)
    ids[int(np.fromfile(store / "ends.bin", np.int64)[3]) - 1] = 7
    ids.tofile(store / "ids.bin")
    with pytest.raises(UserError, match=r"only 98.00% of the examples end with a trained EOS"):
        prepared(path, root)


def test_bad_lines_are_left_out_only_when_asked(path, tmp_path):
    path.write_text(path.read_text() + '{oops\n{"question": "a", "answer": " "}\n{"question": "", "answer": "b"}\n[\n')
    with pytest.raises(UserError, match=r"^4 bad lines:\n.*pairs.jsonl:51: not JSON"):
        prepared(path, tmp_path / "cache")
    for _ in range(2):  # the second time from the cache
        report = prepared(path, tmp_path / "cache", bad_lines=BadLines.skip).report
        assert report.bad_lines["count"] == 4
        assert report.bad_lines["kinds"] == {"not JSON": 2, "the answer is empty": 1, "the question is empty": 1}
        assert report.warnings[0].startswith("bad lines left out: 4 (not JSON 2, the answer is empty 1, ")
        assert f"; the first: {path}:51: not JSON" in report.warnings[0]
    path.write_text("{oops\n")
    with pytest.raises(UserError, match=r"pairs.jsonl: no pairs; .*\nbad lines left out: 1; the first: .*:1: not JSON"):
        prepared(path, tmp_path / "cache", bad_lines=BadLines.skip)


@pytest.mark.skipif(not SHARED_DATA.is_dir(), reason="the folder of real pairs is not beside this clone")
@pytest.mark.parametrize(
    ("name", "pairs", "questions", "repeats", "contradicted"),
    [
        ("nq_open_dev", 3610, 3610, 0, 0),
        ("webquestions", 5810, 5810, 0, 0),
        ("korean_chatbot", 11_823, 11_823 - 161, 73, 85),
        ("gsm8k_train", 7473, 7473, 0, 0),
        ("gsm8k_test", 1319, 1319, 0, 0),
        ("tldr_en", 32_135, 32_135 - 250, 171, 78),
    ],
)
def test_the_report_of_real_files(name, pairs, questions, repeats, contradicted):
    data = prepare(DataConfig(path=str(SHARED_DATA / f"{name}.jsonl.gz"), split=SplitKind.near), GPT2, 1024)
    report = data.report
    assert (report.counts["pairs"], report.counts["questions"]) == (pairs, questions)
    assert (report.repeats["count"], report.contradictions["questions"]) == (repeats, contradicted)
    assert report.eos_trained == 1
    assert report.repeated_questions == {"validation": 0, "test": 0}
    assert abs(report.counts["train"] / pairs - 0.8) < 0.02
    json.dumps(report.as_dict())


@pytest.mark.slow
@pytest.mark.skipif(not SHARED_DATA.is_dir(), reason="the folder of real pairs is not beside this clone")
def test_the_largest_file_is_prepared_in_little_memory(tmp_path):
    """In a process of its own, whose peak is not that of other tests."""
    path, folder = SHARED_DATA / "scale_geonames.jsonl.gz", tmp_path / "cache"
    command = [sys.executable, "-m", "benchmarks.data", json.dumps([str(path)]), "256", str(folder)]
    for _ in range(2):  # the second time from the store
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT / "scripts")
        found = json.loads(done.stdout)
        assert found["pairs"] == 674_044
        assert found["peak_mib"] < 1500
        assert found["fill"] >= 0.98
    data = prepared(path, folder)
    assert data.report.eos_trained == 1
    assert data.report.repeated_questions == {"validation": 0, "test": 0}
    assert len(data.split.train) + len(data.split.validation) == 674_044


# Tokenizers


def test_a_bpe_is_trained_on_the_training_pairs_only(tmp_path):
    path = jsonl(tmp_path / "pairs.jsonl", [(f"q{i}", "zebra" if i % 2 else "apple") for i in range(40)])
    bpe = TokenizerConfig("bpe", vocab_size=400)
    data = prepared(path, tmp_path / "cache", bpe)
    trained = data.table.pairs(data.split.train)
    texts = [text for pair in trained for text in (pair.question, f" {pair.answer}")]
    assert data.tokenizer.encode(["q1 zebra", "zebra"]) == train_bpe(texts, 400).encode(["q1 zebra", "zebra"])
    held_out = jsonl(tmp_path / "other.jsonl", [("quokka quokka", "quokka")] * 30)
    mixed = prepared(path, tmp_path / "cache", bpe, validation_path=str(held_out))
    (ids,) = mixed.tokenizer.encode(["quokka"])
    assert len(ids) >= 5  # no merge was learnt from what is held out


def test_a_name_on_the_hub_without_a_network(tmp_path):
    with pytest.raises(UserError, match=r"tokenizer.path=nobody/nothing: cannot be had .*\n.*tokenizer=folder"):
        hub_tokenizer("nobody/nothing")


def test_a_name_on_the_hub_from_its_cache(tmp_path, monkeypatch, gpt2):
    snapshot = tmp_path / "models--some--model" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    gpt2.write(snapshot)
    refs = tmp_path / "models--some--model" / "refs"
    refs.mkdir()
    (refs / "main").write_text("abc")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    loaded = hub_tokenizer("some/model")
    assert (len(loaded), loaded.eos_id) == (50257, 50256)


def test_a_tokenizer_that_changes_text_is_refused(tmp_path, gpt2):
    gpt2.write(tmp_path)
    config = json.loads((tmp_path / "tokenizer.json").read_text())
    config["normalizer"] = {"type": "Lowercase"}
    config["truncation"] = {"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0}
    (tmp_path / "tokenizer.json").write_text(json.dumps(config))
    folder = TokenizerConfig("folder", str(tmp_path))
    with pytest.raises(UserError, match=r"this tokenizer reads 'What is 2 \+ 2\?' as 'what is 2 \+ 2\?'"):
        prepare(DataConfig(builtin="tutorial"), folder, 256)
    config["normalizer"] = None
    (tmp_path / "tokenizer.json").write_text(json.dumps(config))
    data = prepare(DataConfig(builtin="tutorial"), folder, 256)
    # The file's own truncation is not obeyed.
    assert data.report.lengths == prepare(DataConfig(builtin="tutorial"), GPT2, 256).report.lengths


def test_a_hub_data_set_is_prepared_like_a_file(path, tmp_path):
    data = prepare(DataConfig(hub=str(path.parent), cache=str(tmp_path / "cache")), GPT2, 256)
    assert len(data.table) == 50
    assert data.table.place(3) == f"{path.parent}:4"
    same = prepared(path, tmp_path / "cache")
    assert data.examples.folder == same.examples.folder  # the same texts have one store
