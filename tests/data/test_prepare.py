"""From configuration to encoded pairs: the cache, the report, limits, tokenizers."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qa_lm.config.enums import BadLines, TooLong
from qa_lm.config.schema import DataConfig, TokenizerConfig
from qa_lm.data.batches.store import EncodedPairs, write_store
from qa_lm.data.cache import cached_folder
from qa_lm.data.encoding import encode_prompts
from qa_lm.data.pairs import Pair
from qa_lm.data.prepare import prepare
from qa_lm.data.tokenizer import TextTokenizer, hub_folder, load_tokenizer, train_bpe
from qa_lm.errors import UserError
from tests.conftest import ROOT, SHARED_DATA, encoded
from tests.prepared_pairs import GPT2, jsonl, path, prepared

__all__ = ["path"]

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
    folder = cached_folder(tmp_path, "wide", lambda at: write_store(at, [[Pair("ab", "c")]], wide, template))
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
    with pytest.raises(UserError, match=r"pairs.jsonl: no pairs\nbad lines left out: 1; the first: .*:1: not JSON"):
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
        pytest.param("tldr_en", 32_135, 32_135 - 250, 171, 78, marks=pytest.mark.slow),
    ],
)
def test_the_report_of_real_files(name, pairs, questions, repeats, contradicted):
    data = prepare(DataConfig(path=str(SHARED_DATA / f"{name}.jsonl.gz"), split="near"), GPT2, 1024)
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
    with pytest.raises(UserError, match=r"tokenizer.path=nobody/nothing: cannot be downloaded .*\n.*tokenizer=folder"):
        hub_folder("nobody/nothing")


def test_a_name_on_the_hub_from_its_cache(tmp_path, monkeypatch, gpt2):
    snapshot = tmp_path / "models--some--model" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    gpt2.write(snapshot)
    refs = tmp_path / "models--some--model" / "refs"
    refs.mkdir()
    (refs / "main").write_text("abc")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    loaded = load_tokenizer(hub_folder("some/model"))
    assert (len(loaded), loaded.eos_id) == (50257, 50256)


def test_a_tokenizer_that_changes_text_is_refused(tmp_path, gpt2):
    gpt2.write(tmp_path)
    config = json.loads((tmp_path / "tokenizer.json").read_text())
    config["normalizer"] = {"type": "Lowercase"}
    config["truncation"] = {"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0}
    (tmp_path / "tokenizer.json").write_text(json.dumps(config))
    folder = TokenizerConfig("folder", str(tmp_path))
    with pytest.raises(UserError, match=r"this tokenizer reads 'What is 2 \+ 2\?' as 'what is 2 \+ 2\?'"):
        prepare(DataConfig(path="tutorial"), folder, 256)
    config["normalizer"] = None
    (tmp_path / "tokenizer.json").write_text(json.dumps(config))
    data = prepare(DataConfig(path="tutorial"), folder, 256)
    # The file's own truncation is not obeyed.
    assert data.report.lengths == prepare(DataConfig(path="tutorial"), GPT2, 256).report.lengths


def test_a_hub_data_set_is_prepared_like_a_file(path, tmp_path):
    data = prepare(DataConfig(hub=str(path.parent), cache=str(tmp_path / "cache")), GPT2, 256)
    assert len(data.table) == 50
    assert data.table.place(3) == f"{path.parent}:4"
    same = prepared(path, tmp_path / "cache")
    assert data.examples.folder == same.examples.folder  # the same texts have one store
