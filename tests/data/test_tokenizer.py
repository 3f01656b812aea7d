"""Vocabularies: GPT-2's rebuilt exactly, a BPE of one's own, folders, and what is said when there is none."""

import pytest
from tokenizers import Tokenizer

from qa_lm.data import gpt2_vocabulary
from qa_lm.data.gpt2_vocabulary import load_gpt2_tokenizer, tokenizer_from_ranks
from qa_lm.data.tokenizer import load_tokenizer, train_bpe
from qa_lm.errors import UserError


def test_gpt2_facts(gpt2):
    assert (len(gpt2), gpt2.eos_id) == (50257, 50256)
    # Published ids of GPT-2's tokenizer for these texts.
    assert gpt2.encode(["Hello world", " Hello", "I'm 3½ 한"]) == [
        [15496, 995],
        [18435],
        [40, 1101, 513, 23141, 220, 47991, 250],
    ]


def test_merges_rebuild_from_ranks_alone():
    """A vocabulary made by merges comes back from its ranks, ambiguous-looking merges included."""
    ranks = {bytes([byte]): byte for byte in range(256)}
    for token in (b"aa", b"ab", b"aab", b"aaaa", b"abaab"):
        ranks[token] = len(ranks)
    tokenizer = tokenizer_from_ranks(ranks)
    ids = ranks
    assert tokenizer.encode("aab").ids == [ids[b"aab"]]
    assert tokenizer.encode("aaaa").ids == [ids[b"aaaa"]]
    assert tokenizer.encode("abaab").ids == [ids[b"abaab"]]
    assert tokenizer.encode("ba").ids == [ids[b"b"], ids[b"a"]]


def test_without_any_source_the_error_names_them(monkeypatch, tmp_path):
    def none(**_: bool) -> Tokenizer:
        raise OSError("no network")

    monkeypatch.setenv("QA_LM_CACHE", str(tmp_path))
    for source in ("_from_package", "_from_hub"):
        monkeypatch.setattr(gpt2_vocabulary, source, none)
    with pytest.raises(
        UserError, match=r"cache: no network; package .*: no network; .* hub: no network.*\nRun `make setup`"
    ):
        load_gpt2_tokenizer()


def test_a_wrong_vocabulary_in_the_cache_is_refused(monkeypatch, tmp_path):
    monkeypatch.setenv("QA_LM_CACHE", str(tmp_path))
    (tmp_path / "gpt2").mkdir()
    train_bpe(["abc"], 300)._tokenizer.save(str(tmp_path / "gpt2" / "tokenizer.json"))
    with pytest.raises(UserError, match="not GPT-2's vocabulary"):
        load_gpt2_tokenizer()


def test_bpe_knows_every_byte_and_its_eos():
    tokenizer = train_bpe(["What is 2 + 2?", "한국어 🙂"], 400)
    text = "".join(map(chr, [*range(1, 0x250), 0x2028, 0x85, 0x1F600, 0x0301, 0xAC00]))
    (ids,) = tokenizer.encode([text])
    assert tokenizer.decode(ids) == text
    assert tokenizer.eos_id == 0
    assert 257 <= len(tokenizer) <= 400
    assert len(train_bpe(["aaaa bbbb"], 257)) == 257


def test_a_folder_round_trip(tmp_path, gpt2):
    gpt2.save(tmp_path, context=256)
    loaded = load_tokenizer(tmp_path)
    assert (len(loaded), loaded.eos_id) == (50257, 50256)
    assert loaded.encode(["a<|endoftext|>b"]) == gpt2.encode(["a<|endoftext|>b"])


@pytest.mark.parametrize("content", [None, "", "{}", "[1"])
def test_a_folder_without_a_tokenizer_is_an_error(tmp_path, content):
    if content is not None:
        (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(UserError, match=r"no usable tokenizer.json"):
        load_tokenizer(tmp_path)


def test_a_folder_of_older_files_is_converted(tmp_path, gpt2):
    gpt2._tokenizer.model.save(str(tmp_path))
    assert {file.name for file in tmp_path.iterdir()} == {"vocab.json", "merges.txt"}
    with pytest.raises(UserError, match=r"no usable tokenizer.json"):  # nothing says what they are
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "GPT2Tokenizer"}')
    loaded = load_tokenizer(tmp_path)
    assert (len(loaded), loaded.eos_id) == (50257, 50256)
    text = "What is <|endoftext|>? 누구 🙂"
    assert loaded.encode([text]) == gpt2.encode([text])
    (tmp_path / "vocab.json").unlink()
    with pytest.raises(UserError, match="transformers cannot make one|reads 'What is 2") as error:
        load_tokenizer(tmp_path)
    assert len(str(error.value).splitlines()) == 1


def test_eos_is_found_where_older_folders_name_it(tmp_path, gpt2):
    gpt2.write(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text('{"eos_token": null}')
    with pytest.raises(UserError, match="tokenizer_config.json: names no eos_token"):
        load_tokenizer(tmp_path)
    (tmp_path / "special_tokens_map.json").write_text('{"eos_token": {"content": "<|endoftext|>"}}')
    assert load_tokenizer(tmp_path).eos_id == 50256
    (tmp_path / "special_tokens_map.json").write_text('{"eos_token": "</s>"}')
    with pytest.raises(UserError, match="'</s>' is not in the vocabulary"):
        load_tokenizer(tmp_path)
