"""The trimmed tokenizer of a run: made of its training pairs, cached, and proved."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qa_lm.config.enums import PromptKind
from qa_lm.config.schema import DataConfig, TokenizerConfig
from qa_lm.config.validate import check_sources
from qa_lm.data.prepare import PreparedData
from qa_lm.data.vocabulary import trim as trim_module
from qa_lm.data.vocabulary.rows import old_ids_in
from qa_lm.errors import UserError
from tests.data.chat.chat_folders import LLAMA3, QWEN, chat_folder
from tests.prepared_pairs import GPT2, folders, jsonl, prepared

PAIRS = [
    (f"What is the price of {fruit}?", f"{fruit} costs {n}.") for n, fruit in enumerate(("plums", "pears", "figs"))
]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return jsonl(tmp_path / "pairs.jsonl", PAIRS)


@pytest.fixture
def held_out(tmp_path: Path) -> Path:
    return jsonl(tmp_path / "held_out.jsonl", [("Whatever happened yesterday?", "Nothing <|endoftext|> 한")])


def old_ids(data: PreparedData) -> list[list[int]]:
    assert data.trim
    return [[data.trim.old_ids[each] for each in example.ids] for example in data.examples.examples(np.arange(3))]


def both(path: Path, tmp_path: Path, tokenizer: TokenizerConfig, merges: int = 0, **changes: Any) -> list[PreparedData]:
    """Pairs prepared with the whole vocabulary and with the trimmed one."""
    own = TokenizerConfig(**(vars(tokenizer) | {"trim": merges}))
    changes = {"train_fraction": 1.0} | changes
    return [prepared(path, tmp_path / "cache", each, **changes) for each in (tokenizer, own)]


def test_trained_pairs_keep_their_tokens_and_held_out_ones_do_not_choose(path, held_out, tmp_path):
    whole, small = both(path, tmp_path, GPT2, validation_path=str(held_out))
    assert small.trim
    assert old_ids(small) == [example.ids for example in whole.examples.examples(np.arange(3))]
    assert small.trim.proof["trained_texts_with_other_ids"] == 0
    assert small.trim.proof["trained_texts"] == 3
    assert small.trim.proof["held_out_texts"] == small.trim.proof["held_out_texts_with_other_ids"] == 1
    before, after = small.trim.proof["held_out_tokens"]
    assert 1.5 * before < after < 60
    assert small.trim.proof["tokens"] == [50257, len(small.tokenizer)]
    assert str(small.trim) == (
        f"50,257 tokens trimmed to {len(small.tokenizer)}; held-out texts are {after / before:.2f} times as long"
    )
    assert 257 < len(small.tokenizer) < 300
    (example,) = small.examples.examples(np.array([3]))
    assert small.tokenizer.decode(example.ids) == "Whatever happened yesterday? Nothing <|endoftext|> 한"
    assert example.ids.count(small.tokenizer.eos_id) == 1


def test_the_tokenizer_is_cached_by_what_it_depends_on(path, held_out, tmp_path):
    root = tmp_path / "cache"

    def made() -> int:
        return sum(each.startswith("trimmed/") for each in folders(root))

    for merges, count in ((0, 1), (0, 1), (50, 2)):
        assert both(path, tmp_path, GPT2, merges)[1].trim
        assert made() == count
    prepared(path, root, TokenizerConfig("gpt2", trim=0), train_fraction=0.4)
    prepared(path, root, TokenizerConfig("gpt2", trim=0), validation_path=str(held_out))
    assert made() == 4


@pytest.mark.parametrize("template", [QWEN, LLAMA3])
@pytest.mark.parametrize("kind", list(PromptKind))
def test_the_tokens_of_a_chat_template_and_of_bos_stay(path, tmp_path, template, kind):
    folder = chat_folder(tmp_path / "base", template)
    system = "You are brief." if kind is PromptKind.chat else None
    whole, small = both(path, tmp_path, TokenizerConfig("folder", str(folder)), template=kind, system=system)
    assert old_ids(small) == [example.ids for example in whole.examples.examples(np.arange(3))]
    assert len(small.tokenizer) < len(whole.tokenizer)
    assert small.tokenizer.token(small.tokenizer.eos_id) == whole.tokenizer.token(whole.tokenizer.eos_id)
    assert small.tokenizer.fingerprint != whole.tokenizer.fingerprint
    assert bool(small.template.before) == bool(whole.template.before)


def test_ids_that_the_configuration_of_a_model_names_stay(path, tmp_path):
    folder = chat_folder(tmp_path / "base", None)
    (_, small) = both(path, tmp_path, TokenizerConfig("folder", str(folder)))
    assert small.trim
    unused = next(each for each in range(257, 320) if each not in small.trim.old_ids)
    (folder / "config.json").write_text(json.dumps({"bos_token_id": unused, "eos_token_id": [0, unused + 10**6]}))
    (_, named) = both(path, tmp_path, TokenizerConfig("folder", str(folder)))
    assert named.trim
    assert unused in named.trim.old_ids


def test_a_trained_pair_with_other_ids_ends_the_run(path, tmp_path, monkeypatch):
    whole = trim_module.trimmed
    monkeypatch.setattr(trim_module, "trimmed", lambda tokenizer, used, merges: whole(tokenizer, [], merges))
    with pytest.raises(UserError, match=r"^tokenizer.trim: 3 trained pairs would get other ids"):
        prepared(path, tmp_path / "cache", TokenizerConfig("gpt2", trim=0), train_fraction=1.0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "gpt2", "trim": -1}, "tokenizer.trim=-1: must be 0 or more merges"),
        (
            {"kind": "bpe", "trim": 0},
            "tokenizer.trim=0: has no effect on tokenizer=bpe, .* choose tokenizer.vocab_size",
        ),
    ],
)
def test_settings_that_are_refused(settings, message):
    with pytest.raises(UserError, match=f"^{message}$"):
        check_sources(DataConfig(path="tutorial"), TokenizerConfig(**settings))


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"old_ids": [2, 1]}', '{"old_ids": ["1"]}', '{"old_ids": []}'])
def test_damaged_ids_are_refused(tmp_path, content):
    assert old_ids_in(tmp_path) is None
    (tmp_path / "trim.json").write_text(content)
    with pytest.raises(UserError, match=r"trim.json: is not a valid list of ids"):
        old_ids_in(tmp_path)
