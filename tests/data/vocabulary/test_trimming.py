"""A trimmed byte-level BPE: the same tokens where all are kept, and any text without loss."""

import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from tokenizers.processors import BertProcessing, TemplateProcessing

from qa_lm.data.gpt2_vocabulary import load_gpt2_tokenizer
from qa_lm.data.vocabulary.trimming import TrimmedTokenizer, check_trimmable, check_trimmable_folder, trimmed
from qa_lm.errors import UserError
from tests.conftest import builtin
from tests.data.chat.chat_folders import SPECIAL, tokenizer_with_special_tokens
from tests.data.pretrained.gguf_writing import TEXTS, tiny_tokenizer

USED = [text for pair in builtin("tutorial") for text in (pair.question, f" {pair.answer}")]
GPT2 = load_gpt2_tokenizer()


def ids_of(tokenizer: Tokenizer, texts: list[str]) -> list[list[int]]:
    return [each.ids for each in tokenizer.encode_batch(texts, add_special_tokens=False)]


def cut(tokenizer: Tokenizer, texts: list[str], merges: int = 0) -> TrimmedTokenizer:
    return trimmed(tokenizer, {token for ids in ids_of(tokenizer, texts) for token in ids}, merges)


def old(found: TrimmedTokenizer, texts: list[str]) -> list[list[int]]:
    """The ids of texts in the whole vocabulary, as the trimmed one encodes them."""
    return [[found.old_ids[each] for each in ids] for ids in ids_of(found.tokenizer, texts)]


SMALL = cut(GPT2, USED)


@pytest.mark.parametrize("merges", [0, 100, 3000])
def test_used_texts_keep_their_tokens(merges):
    found = cut(GPT2, USED, merges)
    assert old(found, USED) == ids_of(GPT2, USED)
    assert found.old_ids == sorted(found.old_ids)
    assert found.tokenizer.get_vocab_size() == len(found.old_ids)
    assert 257 + merges < len(found.old_ids) < 257 + merges + 200
    assert found.merges[0] == 50_000
    assert [found.tokenizer.id_to_token(new) for new in (0, 1)] == [
        GPT2.id_to_token(each) for each in found.old_ids[:2]
    ]


@pytest.mark.parametrize("pre", ["gpt-2", "smollm", "llama-bpe", "qwen2"])
def test_every_pre_tokenizer(pre):
    whole = tiny_tokenizer(pre)
    found = cut(whole, TEXTS[:20])
    assert old(found, TEXTS[:20]) == ids_of(whole, TEXTS[:20])
    assert len(found.old_ids) < whole.get_vocab_size()
    assert [found.tokenizer.decode(ids) for ids in ids_of(found.tokenizer, TEXTS)] == TEXTS


def test_the_first_merges_keep_what_they_make():
    """Texts that did not choose the vocabulary, but whose tokens are all kept, have them."""
    found = cut(GPT2, USED, 20_000)
    words = [" the house of a woman", " information about him", "ing and other"]
    assert max(token for ids in ids_of(GPT2, words) for token in ids) < 20_256
    assert old(found, words) == ids_of(GPT2, words)
    assert old(SMALL, words) != ids_of(GPT2, words)


@settings(max_examples=150, deadline=None)
@given(st.text(st.characters(codec="utf-8"), max_size=40))
def test_any_text_comes_back(text):
    (ids,) = ids_of(SMALL.tokenizer, [text])
    assert SMALL.tokenizer.decode(ids, skip_special_tokens=False) == text
    assert GPT2.decode([SMALL.old_ids[each] for each in ids], skip_special_tokens=False) == text


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text("abc ", min_size=1, max_size=12), min_size=1, max_size=6), st.randoms(use_true_random=False))
def test_random_merges(texts: list[str], source: random.Random) -> None:
    """Merges in any order, several to one token, and tokens that no merge leads to: ids of used texts stay."""
    vocabulary = {letter: number for number, letter in enumerate(pre_tokenizers.ByteLevel.alphabet())}
    merges = []
    for _ in range(30):
        left, right = source.choices([token for token in vocabulary if set(token) <= set("abcĠ")], k=2)
        if len(left + right) < 7 and (left, right) not in merges:
            vocabulary.setdefault(left + right, len(vocabulary))
            merges.append((left, right))
    source.shuffle(merges)
    whole = Tokenizer(models.BPE(vocabulary, merges, ignore_merges=source.random() < 0.5))
    whole.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    whole.decoder = decoders.ByteLevel()
    found = cut(whole, texts, source.choice([0, 3]))
    assert old(found, texts) == ids_of(whole, texts)


def test_special_tokens_stay_and_are_renumbered():
    whole = tokenizer_with_special_tokens()
    whole.encode_special_tokens = False
    found = cut(whole, ["user"])
    assert len(found.old_ids) < whole.get_vocab_size()
    for token in SPECIAL:
        (new,) = found.tokenizer.encode(token, add_special_tokens=False).ids
        assert found.old_ids[new] == whole.token_to_id(token)
    encoded = [each.encode("<|im_start|>user") for each in (whole, found.tokenizer)]
    assert [found.old_ids[each] for each in encoded[1].ids] == encoded[0].ids
    assert encoded[1].tokens[:2] == ["<s>", "<|im_start|>"]


def changed(whole: Tokenizer, **changes: object) -> dict:
    content = json.loads(whole.to_str())
    return content | {"model": content["model"] | changes}


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ({"model": {"type": "WordPiece"}}, "it is WordPiece"),
        ({"model": {"type": "Unigram"}}, "it is Unigram"),
        (changed(tiny_tokenizer(), byte_fallback=True), "it is BPE with byte_fallback=True"),
        (changed(tiny_tokenizer(), unk_token="<unk>"), "it is BPE with unk_token=<unk>"),
        (json.loads(tiny_tokenizer().to_str()) | {"pre_tokenizer": {"type": "Metaspace"}}, "it is BPE of characters"),
        ({}, "it is unknown"),
    ],
)
def test_other_kinds_are_refused(content, found):
    with pytest.raises(UserError, match=f"^tokenizer.trim: needs a byte-level BPE, .*; {found}$"):
        check_trimmable(content, "it")


def test_a_folder_is_checked_without_loading_its_tokenizer(tmp_path):
    check_trimmable_folder(tmp_path)  # older files are converted first
    tiny_tokenizer("llama-bpe").save(str(tmp_path / "tokenizer.json"))
    check_trimmable_folder(tmp_path)
    (tmp_path / "tokenizer.json").write_text('{"model": {"type": "Unigram"}}')
    with pytest.raises(UserError, match=f"{tmp_path} is Unigram$"):
        check_trimmable_folder(tmp_path)


def test_post_processors():
    whole = tiny_tokenizer()
    whole.post_processor = BertProcessing(("<|end|>", 0), ("<|turn|>", 1))
    with pytest.raises(UserError, match="its post-processor is BertProcessing"):
        cut(whole, ["a"])
    whole.post_processor = TemplateProcessing(single="$A <tool>", special_tokens=[("<tool>", 599)])
    assert cut(whole, ["a"]).tokenizer.encode("a").tokens == ["a", "<tool>"]
