"""Text to token ids and back.

- Four kinds: GPT-2's vocabulary, a byte-level BPE trained on the training pairs, a folder with tokenizer.json, and a
  name on the Hugging Face hub.
- Text that looks like a special token is text: a pair may speak of `<|endoftext|>` and no EOS appears in it.
- The ids come from the `tokenizers` library alone, which loads in 0.03 s; transformers, which takes seconds, is
  needed only to write the folder that `AutoTokenizer` reads.
"""

import hashlib
import json
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from qa_lm.data.gpt2_vocabulary import EOS_TOKEN, load_gpt2_tokenizer
from qa_lm.errors import UserError, first_line

CHARACTERS_PER_ENTRY = 85
"""Characters of the trained pairs for each entry of a BPE, before that is rounded down to a power of two."""
FEWEST_ENTRIES, MOST_ENTRIES = 4096, 16384
"""Of a BPE. With 32,768 an epoch of 3 million characters is shorter still, but it takes more of them."""

FILE, CONFIG = "tokenizer.json", "tokenizer_config.json"
AT_ONCE = 1024
"""Texts encoded at once: measured 1.25 times as fast as 4,096, and 1.5 times as 16,384."""


class TextTokenizer:
    """A tokenizer with an EOS id, blind to special tokens in the text."""

    def __init__(self, tokenizer: Tokenizer, eos_token: str) -> None:
        eos_id = tokenizer.token_to_id(eos_token)
        assert eos_id is not None, f"the vocabulary has no {eos_token}"
        self._tokenizer = tokenizer
        self._tokenizer.encode_special_tokens = True
        self.eos_token = eos_token
        self.eos_id: int = eos_id

    def __len__(self) -> int:
        """Rows of a matrix that every id is a row of: one more than the highest id."""
        return self._rows

    @property
    def entries(self) -> int:
        """Number of entries; less than `len` if ids are left out."""
        return self._tokenizer.get_vocab_size()

    @cached_property
    def _rows(self) -> int:
        return max(self._tokenizer.get_vocab().values()) + 1

    def encode(self, texts: list[str]) -> list[list[int]]:
        """The ids of each text, without any special token. All cores work on a long list."""
        return [
            encoding.ids
            for begin in range(0, len(texts), AT_ONCE)
            for encoding in self._tokenizer.encode_batch_fast(texts[begin : begin + AT_ONCE], add_special_tokens=False)
        ]

    def decode(self, ids: list[int]) -> str:
        """The text of the ids; special tokens are left out."""
        return self._tokenizer.decode(ids, skip_special_tokens=True)

    @cached_property
    def fingerprint(self) -> str:
        """sha256 of all that decides the ids, in hexadecimal."""
        return hashlib.sha256(f"{self.eos_token}\n{self._tokenizer.to_str()}".encode()).hexdigest()

    def write(self, folder: Path) -> None:
        """Write the two files that `load_tokenizer` reads."""
        self._tokenizer.save(str(folder / FILE))
        (folder / CONFIG).write_text(json.dumps({"eos_token": self.eos_token}), encoding="utf-8")

    def save(self, folder: Path, context: int) -> None:
        """Write the files that `AutoTokenizer.from_pretrained(folder)` needs.

        Args:
            folder: an existing folder.
            context: the most tokens the model sees, which becomes `model_max_length`.
        """
        from transformers import PreTrainedTokenizerFast

        PreTrainedTokenizerFast(
            tokenizer_object=self._tokenizer,
            eos_token=self.eos_token,
            pad_token=self.eos_token,
            model_max_length=context,
            padding_side="left",
            split_special_tokens=True,
            clean_up_tokenization_spaces=False,
        ).save_pretrained(folder)


def gpt2_tokenizer() -> TextTokenizer:
    """GPT-2's tokenizer: 50,257 entries, EOS = <|endoftext|> = 50256."""
    return TextTokenizer(load_gpt2_tokenizer(), EOS_TOKEN)


def train_bpe(texts: Iterable[str], vocab_size: int) -> TextTokenizer:
    """A byte-level BPE trained on these texts; EOS = <|endoftext|> = 0.

    Args:
        texts: what to learn merges from.
        vocab_size: the most entries, at least 257. All 256 bytes are in, so any text can be encoded.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[EOS_TOKEN],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return TextTokenizer(tokenizer, EOS_TOKEN)


def load_tokenizer(folder: Path) -> TextTokenizer:
    """The tokenizer of a transformers folder: tokenizer.json, or older files that transformers can turn into one.

    Raises:
        UserError: the folder has no readable tokenizer, names no EOS token, or loses text.
    """
    older = not (folder / FILE).exists() and any((folder / name).exists() for name in (CONFIG, "config.json"))
    tokenizer, eos_token = _converted(folder) if older else (_from_file(folder), _eos_token(folder))
    if tokenizer.token_to_id(eos_token) is None:
        raise UserError(f"{folder}: the EOS token {eos_token!r} is not in the vocabulary")
    # An answer is cut and padded by ours alone, so what the file says of it is not wanted.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    loaded = TextTokenizer(tokenizer, eos_token)
    if len(loaded) > 2 * loaded.entries:  # each id is a row of the model's matrices
        raise UserError(f"{folder}: its {loaded.entries:,} entries have ids up to {len(loaded) - 1:,}; choose another")
    _check_round_trip(loaded, folder)
    return loaded


def hub_tokenizer(name: str) -> TextTokenizer:
    """The tokenizer of a model on the Hugging Face hub, or in its cache on this machine.

    Raises:
        UserError: it cannot be had, or is unusable; see `load_tokenizer`.
    """
    from huggingface_hub import snapshot_download

    try:
        # Vocabularies and settings, no weights.
        folder = snapshot_download(name, allow_patterns=["*.json", "*.txt", "*.model"], etag_timeout=5)
    except Exception as error:  # errors of many libraries: no network, no such name, no permission
        raise UserError(
            f"tokenizer.path={name}: cannot be had from the Hugging Face hub: {first_line(error)}\n"
            "Give a folder that holds tokenizer.json instead: tokenizer=folder tokenizer.path=FOLDER",
            "tokenizer.path",
        ) from None
    return load_tokenizer(Path(folder))


def _from_file(folder: Path) -> Tokenizer:
    try:
        return Tokenizer.from_file(str(folder / FILE))
    except BaseException as error:
        raise UserError(f"{folder}: no usable tokenizer.json: {_reason(error)}") from None


def _reason(error: BaseException) -> str:
    """What the tokenizers library says of a bad file: it raises bare Exception, and where its Rust code panics, what
    is no Exception at all. Ctrl-C goes on."""
    if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
        raise error
    return first_line(error)


def _converted(folder: Path) -> tuple[Tokenizer, str]:
    """What transformers makes of vocab.json and merges.txt, vocab.txt, tokenizer.model, ..., and its EOS token."""
    from transformers import AutoTokenizer

    try:
        loaded = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        return loaded.backend_tokenizer, str(loaded.eos_token)
    except Exception as error:  # errors of many libraries
        raise UserError(f"{folder}: no tokenizer.json, and transformers cannot make one: {first_line(error)}") from None


def _check_round_trip(tokenizer: TextTokenizer, folder: Path) -> None:
    """Refuse a tokenizer that changes plain text: what a model is asked would not be what was written."""
    text = "What is 2 + 2?"
    try:
        (ids,) = tokenizer.encode([text])
        again = tokenizer.decode(ids)
    except BaseException as error:
        raise UserError(f"{folder}: this tokenizer cannot read {text!r}: {_reason(error)}") from None
    if not ids or again.strip() != text:
        raise UserError(f"{folder}: this tokenizer reads {text!r} as {again!r}; choose another")


def _eos_token(folder: Path) -> str:
    """The EOS token that tokenizer_config.json names, or else special_tokens_map.json, where older folders have it."""
    tokens = [_json(folder / name).get("eos_token") for name in (CONFIG, "special_tokens_map.json")]
    for token in tokens:
        text = token.get("content") if isinstance(token, dict) else token
        if isinstance(text, str):
            return text
    raise UserError(f"{folder / CONFIG}: names no eos_token, the token that ends an answer")


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def bpe_vocab_size(characters: int) -> int:
    """Entries of a BPE: a power of two that doubles with the text.

    More of them make fewer tokens of the same text, and their tables hold part of what is learnt without being
    multiplied, so that the block may be narrower; but the head grows.

    Args:
        characters: of the trained pairs.
    """
    wanted = max(1, characters // CHARACTERS_PER_ENTRY)
    return min(max(1 << (wanted.bit_length() - 1), FEWEST_ENTRIES), MOST_ENTRIES)
