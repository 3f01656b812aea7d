"""The tokenizer of a GGUF file: byte-level BPE, made from the fields of the file; and the names of pre-tokenizers.

transformers makes a tokenizer of a GGUF file too, but ignores `tokenizer.ggml.pre`, which says how text is split before
BPE, and splits as GPT-2 does: the ids are not those that the model was trained on. Here they are llama.cpp's.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
from tokenizers.pre_tokenizers import ByteLevel, PreTokenizer
from tokenizers.processors import TemplateProcessing

from qa_lm.data.tokenizer import CONFIG, FILE
from qa_lm.errors import UserError, first_line

MODEL = "gpt2"
"""`tokenizer.ggml.model` of byte-level BPE."""
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED = 1, 2, 3, 4, 5
"""Values of `tokenizer.ggml.token_type`."""


def _gpt2() -> PreTokenizer:
    return ByteLevel(add_prefix_space=False)


def _smollm() -> PreTokenizer:
    return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), _gpt2()])


def _by_words(digits: str) -> PreTokenizer:
    pattern = (
        r"'(?:[sStTmMdD]|[rR][eE]|[vV][eE]|[lL][lL])"
        rf"|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|{digits}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    )
    bytes_only = ByteLevel(add_prefix_space=False, use_regex=False)
    return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated"), bytes_only])


def _llama3() -> PreTokenizer:
    return _by_words(r"\p{N}{1,3}")


def _qwen2() -> PreTokenizer:
    return _by_words(r"\p{N}")  # without the NFC normalization of Qwen's own tokenizer, as llama.cpp


PRE_TOKENIZERS: dict[str, Callable[[], PreTokenizer]] = {
    "gpt-2": _gpt2,
    "llama-bpe": _llama3,
    "qwen2": _qwen2,
    "smollm": _smollm,
}
"""Pre-tokenizers by `tokenizer.ggml.pre`."""
LLAMA3 = "llama-bpe"
"""Takes a word that is a token as that token, whatever the merges are, and begins each text with BOS unless the file
says otherwise."""

CONTRACTIONS = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)", r"'(?:[sStTmMdD]|[rR][eE]|[vV][eE]|[lL][lL])")
"""English contractions in the patterns of published tokenizers, and the same as written here."""


def pre_tokenizer_name(content: Mapping[str, Any]) -> str:
    """The value of `tokenizer.ggml.pre` for the tokenizer in a tokenizer.json.

    Raises:
        UserError: it is not byte-level BPE, or its pre-tokenizer is none of `PRE_TOKENIZERS`.
    """
    kind = (content.get("model") or {}).get("type")
    if kind != "BPE":
        raise UserError(f"its tokenizer is {kind}; byte-level BPE is supported")
    given = _steps(content.get("pre_tokenizer"))
    for name, make in PRE_TOKENIZERS.items():
        if given == _steps(json.loads(make().__getstate__())):
            return name
    types = " and ".join(step["type"] for step in given) or "none"
    raise UserError(f"its pre-tokenizer ({types}) is not known; {', '.join(sorted(PRE_TOKENIZERS))} are supported")


def _steps(pre_tokenizer: Any) -> list[dict[str, Any]]:
    """The steps of a pre-tokenizer without settings that do not change ids, and with one way to write a pattern."""
    if pre_tokenizer is None:
        return []
    if pre_tokenizer.get("type") == "Sequence":
        return [step for each in pre_tokenizer["pretokenizers"] for step in _steps(each)]
    step = {"use_regex": True} | pre_tokenizer if pre_tokenizer.get("type") == "ByteLevel" else dict(pre_tokenizer)
    step.pop("trim_offsets", None)
    if isinstance(step.get("pattern"), dict) and "Regex" in step["pattern"]:
        step["pattern"] = {"Regex": step["pattern"]["Regex"].replace(*CONTRACTIONS)}
    return [step]


@dataclass(frozen=True)
class GgufTokenizer:
    """A tokenizer with what the file says about its use."""

    tokenizer: Tokenizer
    eos_token: str
    eos_ids: list[int]
    """The EOS id, and the id that ends a turn if that is another."""
    bos_token: str | None
    pad_token: str
    add_bos: bool
    """Whether the model expects each text to begin with BOS."""
    chat_template: str | None

    def write(self, folder: Path, context: int) -> None:
        """Write tokenizer.json and tokenizer_config.json, which `AutoTokenizer.from_pretrained(folder)` reads."""
        self.tokenizer.save(str(folder / FILE))
        config = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "eos_token": self.eos_token,
            "bos_token": self.bos_token,
            "pad_token": self.pad_token,
            "add_bos_token": self.add_bos,
            "model_max_length": context,
            "clean_up_tokenization_spaces": False,
            "chat_template": self.chat_template,
        }
        config = {name: value for name, value in config.items() if value is not None}
        (folder / CONFIG).write_text(json.dumps(config, indent=2), encoding="utf-8")


def tokenizer_of(fields: Mapping[str, Any], path: Path) -> GgufTokenizer:
    """Make the tokenizer of a GGUF file.

    Args:
        fields: the fields of the file, by name.
        path: the file, for error messages.

    Raises:
        UserError: the file has no tokenizer, one of another kind, or one that is damaged.
    """
    kind, pre = fields.get("tokenizer.ggml.model"), fields.get("tokenizer.ggml.pre")
    if kind is None:
        raise UserError(f"{path}: has no tokenizer (tokenizer.ggml.model)")
    if kind != MODEL or pre not in list(PRE_TOKENIZERS):
        raise UserError(
            f"{path}: its tokenizer is not supported: tokenizer.ggml.model={kind}, tokenizer.ggml.pre={pre}; supported "
            f"are {MODEL} with {', '.join(sorted(PRE_TOKENIZERS))}; give a folder with safetensors and tokenizer.json"
        )
    try:
        return _made(fields, pre)
    except Exception as error:  # of tokenizers, and of fields that are missing or of another type
        raise UserError(f"{path}: its tokenizer is damaged: {first_line(error)}") from None


def _made(fields: Mapping[str, Any], pre: str) -> GgufTokenizer:
    tokens: list[str] = fields["tokenizer.ggml.tokens"]
    types = fields.get("tokenizer.ggml.token_type") or [0] * len(tokens)
    typed = list(zip(tokens, types, strict=True))

    def token(name: str) -> str | None:
        number = fields.get(f"tokenizer.ggml.{name}_token_id")
        return None if number is None else tokens[number]

    eos, bos = token("eos"), token("bos")
    if eos is None:
        raise ValueError("it names no EOS token")
    end_of_turn = token("eot") or eos
    vocabulary = {text: number for number, (text, kind) in enumerate(typed) if kind != UNUSED}
    tokenizer = _bpe(vocabulary, fields["tokenizer.ggml.merges"], pre)
    ends = {eos, end_of_turn, bos}
    tokenizer.add_special_tokens([_added(text) for text, kind in typed if kind in (UNKNOWN, CONTROL) or text in ends])
    tokenizer.add_tokens([_added(text) for text, kind in typed if kind == USER_DEFINED])
    add_bos = bool(fields.get("tokenizer.ggml.add_bos_token", pre == LLAMA3))
    if add_bos and bos is not None:  # for readers of the folder; qa_lm encodes without special tokens
        tokenizer.post_processor = TemplateProcessing(single=[bos, "$A"], special_tokens=[(bos, vocabulary[bos])])
    return GgufTokenizer(
        tokenizer,
        eos_token=eos,
        eos_ids=[vocabulary[text] for text in dict.fromkeys([eos, end_of_turn])],
        bos_token=bos,
        pad_token=token("padding") or eos,
        add_bos=add_bos and bos is not None,
        chat_template=fields.get("tokenizer.chat_template"),
    )


def _added(text: str) -> AddedToken:
    return AddedToken(text, normalized=False)


def _bpe(vocabulary: dict[str, int], merges: list[str], pre: str) -> Tokenizer:
    pairs = [(left, right) for left, right in (merge.split(" ") for merge in merges)]
    tokenizer = Tokenizer(models.BPE(vocabulary, pairs, ignore_merges=pre == LLAMA3))
    tokenizer.pre_tokenizer = PRE_TOKENIZERS[pre]()
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer
