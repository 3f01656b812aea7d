"""Tokenizers: encode text to ids and decode ids to text.

- There are four kinds: GPT-2's vocabulary, a byte-level BPE trained on the training pairs, a folder with
  tokenizer.json, and a model on the Hugging Face hub.
- Special tokens in texts are encoded as plain text: a pair may mention `<|endoftext|>` without containing an EOS.
- Only the `tokenizers` library, which loads in 0.03 s, encodes and decodes. transformers, which takes seconds to load,
  is needed only to write the folder that `AutoTokenizer` reads.
"""

import hashlib
import json
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from qa_lm.data.gpt2_vocabulary import EOS_TOKEN, load_gpt2_tokenizer
from qa_lm.errors import UserError, first_line

CHARACTERS_PER_TOKEN = 85
"""Characters of the trained pairs per token of a BPE vocabulary, before rounding down to a power of two."""
MIN_VOCAB_SIZE, MAX_VOCAB_SIZE = 4096, 16384
"""Limits of a BPE vocabulary. With 32,768 tokens an epoch of 3 million characters is even shorter, but more epochs are
needed."""

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

FILE, CONFIG = "tokenizer.json", "tokenizer_config.json"
ROUND_TRIP = "What is 2 + 2?"
"""A plain text on which tokenizers are checked."""
AT_ONCE = 1024
"""Number of texts encoded at once; measured 1.25 times as fast as 4,096, and 1.5 times as fast as 16,384."""


class TextTokenizer:
    """A tokenizer with an EOS id, which encodes special tokens in texts as plain text.

    Args:
        tokenizer: the tokenizer.
        eos_token: the token that ends an answer.
    """

    def __init__(self, tokenizer: Tokenizer, eos_token: str) -> None:
        eos_id = tokenizer.token_to_id(eos_token)
        assert eos_id is not None, f"the vocabulary has no {eos_token}"
        self._tokenizer = tokenizer
        self._tokenizer.encode_special_tokens = True
        self.eos_token = eos_token
        self.eos_id: int = eos_id

    def __len__(self) -> int:
        """Highest id plus one: the number of embeddings that a model needs."""
        return self._rows

    @property
    def vocab_size(self) -> int:
        """Number of tokens; less than `len` if the ids have gaps."""
        return self._tokenizer.get_vocab_size()

    @cached_property
    def _rows(self) -> int:
        return max(self._tokenizer.get_vocab().values()) + 1

    def encode(self, texts: list[str]) -> list[list[int]]:
        """Encode each text, without special tokens; long lists are encoded in parallel."""
        return [
            encoding.ids
            for begin in range(0, len(texts), AT_ONCE)
            for encoding in self._tokenizer.encode_batch_fast(texts[begin : begin + AT_ONCE], add_special_tokens=False)
        ]

    @property
    def end_ids(self) -> list[int]:
        """Ids at which generation stops."""
        return [self.eos_id]

    @cached_property
    def prefix(self) -> tuple[int, ...]:
        """Ids that the tokenizer itself puts before every text, such as BOS.

        Raises:
            UserError: it changes texts in another way; it may also put EOS after them, which is left out.
        """
        plain = self._tokenizer.encode(ROUND_TRIP, add_special_tokens=False).ids
        ids = self._tokenizer.encode(ROUND_TRIP).ids
        while ids and ids[-1] == self.eos_id:
            ids = ids[:-1]
        count = len(ids) - len(plain)
        if count < 0 or ids[count:] != plain:
            raise UserError(
                f"tokenizer.path: the tokenizer reads {ROUND_TRIP!r} as {self._tokenizer.encode(ROUND_TRIP).tokens}; "
                "besides a beginning and EOS it may add nothing, so choose that of a causal language model"
            )
        return tuple(ids[:count])

    def id_of(self, token: str) -> int | None:
        """The id of a token; None if the vocabulary has none of this name."""
        return self._tokenizer.token_to_id(token)

    def token(self, number: int) -> str | None:
        """The token with this id; None if the vocabulary has none."""
        return self._tokenizer.id_to_token(number)

    def decode(self, ids: list[int]) -> str:
        """Decode ids to text; special tokens are skipped."""
        return self._tokenizer.decode(ids, skip_special_tokens=True)

    @cached_property
    def fingerprint(self) -> str:
        """sha256 of everything that determines the ids, in hexadecimal."""
        return hashlib.sha256(self._determines_ids().encode()).hexdigest()

    def _determines_ids(self) -> str:
        return f"{self.eos_token}\n{self._tokenizer.to_str()}"

    def write(self, folder: Path) -> None:
        """Write the two files that `load_tokenizer` reads."""
        self._tokenizer.save(str(folder / FILE))
        (folder / CONFIG).write_text(json.dumps({"eos_token": self.eos_token}), encoding="utf-8")

    def save(self, folder: Path, context: int, **settings: Any) -> None:
        """Write the files that `AutoTokenizer.from_pretrained(folder)` needs.

        Args:
            folder: an existing folder.
            context: maximum sequence length of the model in tokens, stored as `model_max_length`.
            settings: see `for_transformers`.
        """
        self.for_transformers(context, **settings).save_pretrained(folder)

    def for_transformers(self, context: int, **settings: Any) -> "PreTrainedTokenizerFast":
        """The same tokenizer as an object of transformers.

        Args:
            context: maximum sequence length of the model in tokens.
            settings: further arguments of its class; they replace those given here.
        """
        from transformers import PreTrainedTokenizerFast

        ours: dict[str, Any] = {
            "eos_token": self.eos_token,
            "pad_token": self.eos_token,
            "model_max_length": context,
            "padding_side": "left",
            "split_special_tokens": True,
            "clean_up_tokenization_spaces": False,
        }
        return PreTrainedTokenizerFast(tokenizer_object=self._tokenizer, **(ours | settings))


def gpt2_tokenizer() -> TextTokenizer:
    """Load GPT-2's tokenizer: 50,257 tokens, EOS = <|endoftext|> = 50256."""
    return TextTokenizer(load_gpt2_tokenizer(), EOS_TOKEN)


def train_bpe(texts: Iterable[str], vocab_size: int) -> TextTokenizer:
    """Train a byte-level BPE; EOS = <|endoftext|> = 0.

    Args:
        texts: training texts.
        vocab_size: maximum number of tokens, at least 257. It contains all 256 bytes, so any text can be encoded.
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
    """Load the tokenizer of a transformers folder: tokenizer.json, or older files that transformers can convert.

    Raises:
        UserError: the folder has no readable tokenizer, names no EOS token, or the tokenizer does not preserve text.
    """
    older = not (folder / FILE).exists() and any((folder / name).exists() for name in (CONFIG, "config.json"))
    tokenizer, eos_token = _converted(folder) if older else (_from_file(folder), _eos_token(folder))
    if tokenizer.token_to_id(eos_token) is None:
        raise UserError(f"{folder}: the EOS token {eos_token!r} is not in the vocabulary")
    # qa_lm does its own truncation and padding, so the settings in the file are disabled.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    loaded = TextTokenizer(tokenizer, eos_token)
    if len(loaded) > 2 * loaded.vocab_size:  # each id is a row of the embedding matrix
        raise UserError(
            f"{folder}: the vocabulary has {loaded.vocab_size:,} tokens, but ids up to {len(loaded) - 1:,}; "
            "choose another"
        )
    _check_round_trip(loaded, folder)
    return loaded


def hub_folder(name: str) -> Path:
    """The local folder of a model's tokenizer, from the Hugging Face hub or its local cache.

    Raises:
        UserError: it cannot be downloaded.
    """
    from huggingface_hub import snapshot_download

    try:
        # Download vocabularies and settings, but no weights.
        return Path(snapshot_download(name, allow_patterns=["*.json", "*.txt", "*.model", "*.jinja"], etag_timeout=5))
    except Exception as error:  # errors of many libraries: no network, no such name, no permission
        raise UserError(
            f"tokenizer.path={name}: cannot be downloaded from the Hugging Face hub: {first_line(error)}\n"
            "Give a folder that contains tokenizer.json instead: tokenizer=folder tokenizer.path=FOLDER",
            "tokenizer.path",
        ) from None


def _from_file(folder: Path) -> Tokenizer:
    try:
        return Tokenizer.from_file(str(folder / FILE))
    except BaseException as error:
        raise UserError(f"{folder}: no usable tokenizer.json: {_reason(error)}") from None


def _reason(error: BaseException) -> str:
    """The message of the tokenizers library about a bad file. It raises a bare Exception or, if its Rust code panics, a
    PanicException, which does not derive from Exception; anything else, such as Ctrl-C, is raised again."""
    if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
        raise error
    return first_line(error)


def _converted(folder: Path) -> tuple[Tokenizer, str]:
    """Convert vocab.json and merges.txt, vocab.txt, ... with transformers; return the tokenizer and its EOS token."""
    from transformers import AutoTokenizer

    try:
        loaded = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        return loaded.backend_tokenizer, str(loaded.eos_token)
    except Exception as error:  # errors of many libraries
        raise UserError(f"{folder}: no tokenizer.json, and transformers cannot make one: {first_line(error)}") from None


def _check_round_trip(tokenizer: TextTokenizer, folder: Path) -> None:
    """Check that the tokenizer preserves plain text."""
    text = ROUND_TRIP
    try:
        (ids,) = tokenizer.encode([text])
        again = tokenizer.decode(ids)
    except BaseException as error:
        raise UserError(f"{folder}: this tokenizer cannot read {text!r}: {_reason(error)}") from None
    if not ids or again.strip() != text:
        raise UserError(f"{folder}: this tokenizer reads {text!r} as {again!r}; choose another")


def _eos_token(folder: Path) -> str:
    """The EOS token named by tokenizer_config.json or, in older folders, by special_tokens_map.json."""
    tokens = [json_object(folder / name).get("eos_token") for name in (CONFIG, "special_tokens_map.json")]
    for token in tokens:
        text = token.get("content") if isinstance(token, dict) else token
        if isinstance(text, str):
            return text
    raise UserError(f"{folder / CONFIG}: names no eos_token, the token that ends an answer")


def json_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file; an empty one if there is no such file, or something else in it."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def bpe_vocab_size(characters: int) -> int:
    """Choose the vocabulary size of a BPE: a power of two that is proportional to the amount of text.

    With a larger vocabulary the text has fewer tokens, and the embeddings store part of what is learnt without extra
    multiplications, so the blocks can be narrower; but the head grows.

    Args:
        characters: number of characters of the trained pairs.
    """
    size = max(1, characters // CHARACTERS_PER_TOKEN)
    return min(max(1 << (size.bit_length() - 1), MIN_VOCAB_SIZE), MAX_VOCAB_SIZE)
