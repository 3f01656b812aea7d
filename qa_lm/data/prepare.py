"""Prepare the pairs of a configuration: read, split, tokenize, encode and check them, with a cache."""

import hashlib
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from qa_lm.config.enums import TooLong
from qa_lm.config.schema import DataConfig, TokenizerConfig
from qa_lm.data.augment import Rewriter
from qa_lm.data.batches.packing import row_tokens
from qa_lm.data.batches.rewritten import RewrittenPrompts, rewritten_share, room_per_pair
from qa_lm.data.batches.store import EncodedPairs, write_store
from qa_lm.data.cache import cache_folder, cached_folder, key_of, read_meta
from qa_lm.data.chat.prompts import with_special_tokens
from qa_lm.data.encoding import PromptTemplate
from qa_lm.data.keys import slices
from qa_lm.data.quality.checks import DataReport, describe
from qa_lm.data.quality.limits import within_limit
from qa_lm.data.readers.reading import RULES, PairReader, Reading, Source
from qa_lm.data.sources import how_to_read, source_name, sources_of, template_of_settings
from qa_lm.data.splits.draw import Split
from qa_lm.data.splits.settings import split_of_settings
from qa_lm.data.storage import arrays
from qa_lm.data.storage.progress import with_progress
from qa_lm.data.storage.side_by_side import read_chunks
from qa_lm.data.table import PairTable, write_table
from qa_lm.data.tokenizer import TextTokenizer, bpe_vocab_size, gpt2_tokenizer, hub_folder, load_tokenizer, train_bpe
from qa_lm.data.vocabulary.trim import Trim, mask, mask_key, masked, trim_vocabulary
from qa_lm.errors import UserError

NO_LIMIT = 2**31 - 1
ANSWERS = 4096
"""Number of answers in memory at once while their bytes are counted."""


@dataclass(frozen=True)
class Sizes:
    """Sizes of the prepared pairs, from which the recipe chooses settings."""

    lengths: np.ndarray
    """Number of inputs of each trained pair."""
    longest: int
    """Number of inputs of the longest pair."""
    answer: float
    """Mean number of tokens of a trained answer (EOS included)."""
    row: int | None
    """Positions of a packed row; None without packing."""
    vocab_size: int
    """Number of tokens in the vocabulary."""
    paraphrases: float = 1.0
    """Mean number of trained pairs per fact."""


def mean_paraphrases(groups: np.ndarray) -> float:
    """Mean number of trained pairs per fact.

    Args:
        groups: key of the fact that each pair states; 0 for a pair without a group, which counts as its own fact.
    """
    stated = arrays.joined(
        (part[part != 0] for part in (groups[block] for block in arrays.blocks(len(groups)))), np.uint64
    )
    facts = sum(len(np.unique(keys)) for _, keys in slices([stated])) + len(groups) - len(stated)
    return len(groups) / max(1, facts)


@dataclass(frozen=True)
class PreparedData:
    """Pairs that are ready for training."""

    name: str
    """Display name of the data set."""
    table: PairTable
    split: Split
    tokenizer: TextTokenizer
    template: PromptTemplate
    examples: EncodedPairs
    report: DataReport
    row_tokens: int | None
    """Positions of a packed row, chosen automatically if not set; None without packing."""
    temporary: "tempfile.TemporaryDirectory[str]"
    """Folder for files that are not cached; deleted together with this object."""
    trim: Trim | None = None
    """How the vocabulary was trimmed; None if it was not."""

    def sizes(self) -> Sizes:
        """Sizes from which the recipe chooses settings."""
        train, keys = self.split.train, self.table.numbers("group_key")
        groups = arrays.each_block(lambda block: keys[block], train, np.uint64)
        return Sizes(
            lengths=self.examples.lengths(train),
            longest=self.report.lengths["example_tokens"]["p100"],
            answer=float(self.examples.answer_lengths(train).mean()),
            row=self.row_tokens,
            vocab_size=len(self.tokenizer),
            paraphrases=mean_paraphrases(groups),
        )

    def answer_bytes(self, places: np.ndarray) -> int:
        """UTF-8 bytes of the answers of these pairs."""
        batches = (places[begin : begin + ANSWERS] for begin in range(0, len(places), ANSWERS))
        return sum(len(pair.answer.encode("utf-8")) for batch in batches for pair in self.table.pairs(batch))

    def rewritten_prompts(self, seed: int, share: float, context: int | None) -> RewrittenPrompts | None:
        """What rewrites a share of the training questions; None if no question is rewritten.

        Args:
            seed: random seed of the rewritten questions.
            share: share of the questions, from 0 to 1.
            context: maximum sequence length of the model in tokens.
        """
        share = rewritten_share(share, self.template)
        if not share:
            return None
        rewriter = Rewriter(seed, share)
        return RewrittenPrompts(self.table, self.tokenizer, self.template, rewriter, context or NO_LIMIT)

    def fingerprints(self) -> dict[str, str]:
        """sha256 of the pairs, of their split and of the tokenizer."""
        sides = hashlib.sha256()
        for side in self.split[:3]:
            sides.update(len(side).to_bytes(8, "little"))
            sides.update(np.ascontiguousarray(side).data)
        return {
            "data_sha256": self.table.fingerprint,
            "split_sha256": sides.hexdigest(),
            "tokenizer_sha256": self.tokenizer.fingerprint,
        }


def prepare(
    data: DataConfig, tokenizer: TokenizerConfig, context: int | None, check_only: bool = False
) -> PreparedData:
    """Prepare the pairs of a configuration, or load them from the cache.

    Args:
        data: files, split, row size.
        tokenizer: tokenizer settings.
        context: maximum sequence length of the model in tokens; None for the longest pair.
        check_only: whether to only report pairs that are too long.

    Raises:
        UserError: the files, the split or the tokenizer are invalid, or an example would not end with a trained EOS.
    """
    temporary = tempfile.TemporaryDirectory(prefix="qa_lm.", ignore_cleanup_errors=True)
    cache = cache_folder() if data.cache is None else Path(data.cache).expanduser()
    root = Path(temporary.name) if cache_is_off(data) else cache
    arrays.keep_in(root)
    sides = sources_of(data)
    template = template_of_settings(data)
    is_cacheable = all(source.is_cacheable for side in sides for source in side)
    place = root if is_cacheable else Path(temporary.name)
    table, found = _table(place, sides, how_to_read(data, template))
    try:
        split = split_of_settings(data, table, [len(side) for side in sides], root)
    except UserError as error:  # an ignored column may be the reason
        hints = found["warnings"] if data.split in ("question", "near") else []
        raise UserError("\n".join([str(error), *hints]), error.key) from None
    chosen, template, trim = _tokenizer(tokenizer, table, split, template, root)
    if template.before and data.too_long is TooLong.truncate_question:
        cut = "would cut the special tokens at the beginning of a prompt; choose data.too_long=drop"
        raise UserError(f"data.too_long=truncate_question: {cut}", "data.too_long")
    store = _store(root, table, chosen, template)
    row = data.row_tokens if data.packing else None
    limit = min(context or NO_LIMIT, row or NO_LIMIT)
    setting = "data.row_tokens" if limit == row else "model.context"
    examples = EncodedPairs(store, NO_LIMIT if check_only else limit)
    too_long = "report" if check_only else data.too_long.value
    split, long = within_limit(split, examples, limit, table, too_long, setting)
    if data.packing and row is None:
        room = room_per_pair(rewritten_share(data.augment, template))
        used = arrays.joined([split.train, split.validation], np.int32)
        row = row_tokens(arrays.each_block(lambda block: examples.lengths(block) + np.int32(room), used, np.int32))
    report = describe(table, split, examples, chosen.eos_id, found, long)
    if report.eos_trained < 1:
        raise UserError(
            f"only {report.eos_trained:.2%} of the examples end with a trained EOS, so answers would not stop; "
            "delete the cache folder and report this"
        )
    return PreparedData(source_name(data), table, split, chosen, template, examples, report, row, temporary, trim)


def cache_is_off(data: DataConfig) -> bool:
    """Whether the cache is turned off."""
    return data.cache is not None and data.cache.lower() in ("off", "false")  # YAML reads a bare `off` as false


def _table(root: Path, sides: list[list[Source]], reading: Reading) -> tuple[PairTable, dict[str, Any]]:
    sources = [source for side in sides for source in side]
    contents = [source.content_key() for source in sources]

    def make(folder: Path) -> dict[str, Any]:
        reader = PairReader(sources, reading)
        return write_table(folder, with_progress(read_chunks(reader, folder), "reading", "pair", len)) | reader.found()

    names = [source.name for source in sources]
    key = key_of(kind="pairs", names=names, contents=contents, reading=asdict(reading), rules=RULES)
    folder = cached_folder(root / "pairs", key, make)
    table = PairTable(folder, names)
    meta = read_meta(folder)
    if not len(table):
        bad = meta["bad_lines"]
        more = f"\nbad lines left out: {bad['count']:,}; the first: {bad['listed'][0]}" if bad["count"] else ""
        raise UserError(f"{', '.join(names)}: no pairs{more}")
    return table, meta


def _tokenizer(
    config: TokenizerConfig, table: PairTable, split: Split, template: PromptTemplate, root: Path
) -> tuple[TextTokenizer, PromptTemplate, Trim | None]:
    """The tokenizer, the template with the special tokens around a prompt, and how the vocabulary was trimmed."""
    if config.kind == "bpe":
        return _trained_bpe(config, table, split, template, root), template, None
    assert config.kind == "gpt2" or config.path is not None
    folder = Path(config.path or "") if config.kind == "folder" else None
    folder = hub_folder(str(config.path)) if config.kind == "hub" else folder
    found = with_special_tokens(folder, template) if folder else (gpt2_tokenizer(), template)
    if config.trim is None:
        return *found, None
    trim = trim_vocabulary(found[0], (template, found[1]), folder, config.trim, table, split, root)
    return *with_special_tokens(trim.folder, template), trim


def _trained_bpe(
    config: TokenizerConfig, table: PairTable, split: Split, template: PromptTemplate, root: Path
) -> TextTokenizer:
    trained = mask(table, split.train)
    all_blocks = list(arrays.blocks(len(table)))
    columns = [table.numbers(f"{part}_characters") for part in ("question", "answer")]
    characters = sum(int(column[block][trained[block]].sum()) for column in columns for block in all_blocks)
    vocab_size = config.vocab_size or bpe_vocab_size(characters)

    def texts() -> Iterator[str]:
        for pairs in masked(table, trained):
            for pair in pairs:
                yield template.prompt_text(pair.question)
                yield template.answer_text(pair.answer)

    def make(folder: Path) -> dict[str, Any]:
        train_bpe(texts(), vocab_size).write(folder)
        return {}

    key = key_of(
        kind="bpe",
        pairs=table.fingerprint,
        train=mask_key(trained),
        vocab_size=vocab_size,
        template=asdict(template),
    )
    return load_tokenizer(cached_folder(root / "bpe", key, make))


def _store(root: Path, table: PairTable, tokenizer: TextTokenizer, template: PromptTemplate) -> Path:
    key = key_of(kind="encoded", pairs=table.fingerprint, tokenizer=tokenizer.fingerprint, template=asdict(template))
    return cached_folder(
        root / "encoded",
        key,
        lambda folder: write_store(folder, with_progress(table.batches(), "encoding", "batch"), tokenizer, template),
    )
