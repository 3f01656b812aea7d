"""The tokenizer of a GGUF file has the ids of the tokenizer that the file was written from, for every pre-tokenizer."""

import json
from pathlib import Path

import pytest

from qa_lm.data.pretrained.gguf_tokenizer import PRE_TOKENIZERS, tokenizer_of
from qa_lm.data.tokenizer import TextTokenizer
from qa_lm.errors import UserError
from tests.data.pretrained.gguf_writing import EOS, TEXTS, TOOL, TURN, tiny_tokenizer, tokenizer_fields

PATH = Path("tiny.gguf")


@pytest.fixture(scope="module", params=PRE_TOKENIZERS)
def pre(request):
    return request.param


@pytest.fixture(scope="module")
def source(pre):
    return tiny_tokenizer(pre)


def test_the_ids_are_those_of_the_source(pre, source):
    made = tokenizer_of(tokenizer_fields(source, pre), PATH)
    texts = [*TEXTS, f"a{EOS}b{TURN}c{TOOL}d", "  x  1234567\r\n\r\n y\u00a0'LL\t\u0663\u0664 🙂", ""]
    expected = [encoding.ids for encoding in source.encode_batch(texts)]
    assert [encoding.ids for encoding in made.tokenizer.encode_batch(texts)] == expected
    text_tokenizer = TextTokenizer(made.tokenizer, made.eos_token)
    ids = text_tokenizer.encode(texts)
    assert text_tokenizer.eos_id not in ids[-3]  # a question that mentions EOS does not end there
    assert [text_tokenizer.decode(each) for each in ids[:-3]] == TEXTS


SPLITS = {
    "gpt-2": ["x", " ", " 1234567", " y", "'ll", " a", "'LL"],
    "smollm": ["x", "  ", "1", "2", "3", "4", "5", "6", "7", " y", "'ll", " a", "'", "LL"],
    "llama-bpe": ["x", " ", " ", "123", "456", "7", " y", "'ll", " a", "'LL"],
    "qwen2": ["x", " ", " ", "1", "2", "3", "4", "5", "6", "7", " y", "'ll", " a", "'LL"],
}
SPLITS["gpt-2"][-1:] = ["'", "LL"]


def test_texts_are_split_by_the_pre_tokenizer_that_the_file_names(pre):
    parts = PRE_TOKENIZERS[pre]().pre_tokenize_str("x  1234567 y'll a'LL")
    assert [part.replace("Ġ", " ") for part, _ in parts] == SPLITS[pre]


def test_whether_a_text_begins_with_bos(pre, source):
    fields = tokenizer_fields(source, pre)
    for said, expected in ((True, True), (False, False), (None, pre == "llama-bpe")):
        fields["tokenizer.ggml.add_bos_token"] = said
        if said is None:
            del fields["tokenizer.ggml.add_bos_token"]
        made = tokenizer_of(fields, PATH)
        assert made.add_bos is expected
        assert (made.tokenizer.encode("Hi").ids[0] == 0) is expected
        assert made.tokenizer.encode("Hi", add_special_tokens=False).ids == source.encode("Hi").ids
    del fields["tokenizer.ggml.bos_token_id"]
    assert not tokenizer_of(fields, PATH).add_bos


def test_a_word_that_is_a_token_is_not_merged_by_llama_3():
    fields = tokenizer_fields(tiny_tokenizer(), "gpt-2")
    word = next(
        token
        for token in reversed(fields["tokenizer.ggml.tokens"])
        if token.isascii() and token.isalpha() and len(token) > 3
    )
    fields["tokenizer.ggml.merges"] = fields["tokenizer.ggml.merges"][:20]
    assert len(tokenizer_of(fields, PATH).tokenizer.encode(word).ids) > 1
    fields["tokenizer.ggml.pre"] = "llama-bpe"
    assert tokenizer_of(fields, PATH).tokenizer.encode(word, add_special_tokens=False).tokens == [word]


def test_unused_tokens_are_left_out():
    fields = tokenizer_fields(tiny_tokenizer(size=500), "gpt-2")
    assert len(fields["tokenizer.ggml.tokens"]) == 600
    assert tokenizer_of(fields, PATH).tokenizer.get_vocab_size() == 501


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"model": None}, "tiny.gguf: has no tokenizer (tokenizer.ggml.model)"),
        (
            {"model": "llama"},
            "tiny.gguf: its tokenizer is not supported: tokenizer.ggml.model=llama, tokenizer.ggml.pre=",
        ),
        (
            {"pre": "tekken"},
            "tokenizer.ggml.pre=tekken; supported are gpt2 with gpt-2, llama-bpe, qwen2, smollm; give a",
        ),
        ({"pre": None}, "tokenizer.ggml.pre=None; supported are"),
        ({"pre": ["gpt-2"]}, "tokenizer.ggml.pre=['gpt-2']; supported are"),
        ({"eos_token_id": None}, "its tokenizer is damaged: it names no EOS token"),
        ({"eos_token_id": 600}, "its tokenizer is damaged: list index out of range"),
        ({"eos_token_id": "end"}, "its tokenizer is damaged: "),
        ({"tokens": None}, "its tokenizer is damaged: "),
        ({"tokens": ["a"]}, "its tokenizer is damaged: "),
        ({"tokens": 7}, "its tokenizer is damaged: "),
        ({"merges": None}, "its tokenizer is damaged: "),
        ({"merges": ["a"]}, "its tokenizer is damaged: "),
        ({"merges": ["abc defghi"]}, "its tokenizer is damaged: "),
        ({"token_type": [1, 1]}, "its tokenizer is damaged: "),
    ],
)
def test_what_is_refused(changes, reason):
    changed = {f"tokenizer.ggml.{name}": value for name, value in changes.items()}
    fields = tokenizer_fields(tiny_tokenizer(), "gpt-2") | changed
    with pytest.raises(UserError) as caught:
        tokenizer_of({name: value for name, value in fields.items() if value is not None}, PATH)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_written_files(tmp_path):
    fields = tokenizer_fields(tiny_tokenizer(), "gpt-2")
    del fields["tokenizer.ggml.token_type"]  # then all tokens are plain, except EOS
    tokenizer_of(fields, PATH).write(tmp_path, 64)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert config["eos_token"] == config["pad_token"] == EOS
    assert "chat_template" not in config
    added = json.loads((tmp_path / "tokenizer.json").read_text())["added_tokens"]
    assert [each["content"] for each in added] == [EOS]
