"""A tokenizer as GGUF describes it.

Special tokens get other names in the file: readers of chat templates take special tokens out of a user's text, so a
question that mentions `<|endoftext|>` would have other ids than in training. Nobody types the new names. Ids stay.
"""

import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from tokenizers import Tokenizer

from qa_lm.data.pretrained.gguf_tokenizer import (
    CONTROL,
    LLAMA3,
    MODEL,
    NORMAL,
    UNUSED,
    USER_DEFINED,
    pre_tokenizer_name,
)
from qa_lm.errors import UserError

HIDDEN = "\ue0f8"
"""A character for private use, around the name of a special token."""


@dataclass(frozen=True)
class GgufTokens:
    """The tokenizer of a model, with special tokens by their new names.

    Args:
        content: the content of tokenizer.json.
        rows: number of embeddings of the model.
        end_ids: ids that end an answer, the one that was trained first.
        bos_id: id of BOS; None if the tokenizer has none.
        add_bos: whether each prompt begins with BOS.
    """

    content: dict[str, Any]
    rows: int
    end_ids: list[int]
    bos_id: int | None
    add_bos: bool

    @cached_property
    def new_names(self) -> dict[str, str]:
        """The new name of each special token."""
        return {each["content"]: f"{HIDDEN}{each['content']}{HIDDEN}" for each in self._added if each["special"]}

    @property
    def _added(self) -> list[dict[str, Any]]:
        return list(self.content["added_tokens"])

    @cached_property
    def renamed(self) -> Tokenizer:
        """The tokenizer with the new names, which adds nothing to texts by itself."""
        model = self.content["model"]
        vocabulary = {self.new_names.get(token, token): number for token, number in model["vocab"].items()}
        added = [each | {"content": self.new_names.get(each["content"], each["content"])} for each in self._added]
        content = {
            **self.content,
            "model": {**model, "vocab": vocabulary, "unk_token": None},
            "added_tokens": added,
            "post_processor": None,
            "truncation": None,
            "padding": None,
        }
        return Tokenizer.from_str(json.dumps(content))

    def rename(self, text: str) -> str:
        """A text in which special tokens have their new names, such as a chat template."""
        for old, new in sorted(self.new_names.items(), key=lambda each: -len(each[0])):
            text = text.replace(old, new)
        return text

    def fields(self) -> dict[str, Any]:
        """The fields of GGUF.

        Raises:
            UserError: llama.cpp has no such tokenizer.
        """
        pre = pre_tokenizer_name(self.content)
        check_bpe(self.content, pre)
        names = {number: token for token, number in self.renamed.get_vocab().items()}
        types = {each["id"]: CONTROL if each["special"] else USER_DEFINED for each in self._added}
        end, *others = self.end_ids
        fields: dict[str, Any] = {
            "model": MODEL,
            "pre": pre,
            "tokens": [names.get(number, f"{HIDDEN}unused {number}{HIDDEN}") for number in range(self.rows)],
            "token_type": [types.get(number, NORMAL if number in names else UNUSED) for number in range(self.rows)],
            "merges": [each if isinstance(each, str) else " ".join(each) for each in self.content["model"]["merges"]],
            "eos_token_id": end,
            "bos_token_id": end if self.bos_id is None else self.bos_id,
            "padding_token_id": end,
            "add_bos_token": self.add_bos,
            "add_eos_token": False,
            "add_space_prefix": False,
        }
        if others:
            fields["eot_token_id"] = others[0]
        return {f"tokenizer.ggml.{name}": value for name, value in fields.items()}


def check_bpe(content: dict[str, Any], pre: str) -> None:
    """Refuse a tokenizer that is not the byte-level BPE of llama.cpp.

    Args:
        content: the content of tokenizer.json.
        pre: the name of its pre-tokenizer.

    Raises:
        UserError: says what is different.
    """
    model = content["model"]
    settings = ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback", "fuse_unk")
    other = next((name for name in settings if model.get(name)), None)
    ignores = bool(model.get("ignore_merges"))
    normalizer = content.get("normalizer")
    strips = [each["content"] for each in content["added_tokens"] if each["lstrip"] or each["rstrip"]]
    if other or ignores != (pre == LLAMA3):
        what = f"{other}={model[other]}" if other else f"ignore_merges={ignores}"
        raise UserError(f"a tokenizer with {what} and the pre-tokenizer {pre} is not supported")
    if normalizer is not None and (normalizer.get("type") != "NFC" or pre != "qwen2"):
        raise UserError(f"a tokenizer with the normalizer {normalizer.get('type')} is not supported")
    if strips:
        raise UserError(f"a tokenizer whose token {strips[0]} takes in white space is not supported")
