"""The LightningDataModule, which builds batches from encoded pairs."""

from collections.abc import Callable
from functools import cached_property, partial
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from qa_lm.batch import Batch
from qa_lm.config.enums import TrainOn
from qa_lm.config.schema import DataConfig, TokenizerConfig
from qa_lm.data.batches.batching import PackedRows, PaddedRows, Row
from qa_lm.data.batches.collate import Collate
from qa_lm.data.batches.rewritten import RewrittenPrompts
from qa_lm.data.batches.store import EncodedPairs
from qa_lm.data.prepare import PreparedData, prepare
from qa_lm.data.splits.draw import Split
from qa_lm.data.storage.arrays import ascending, each_block, order_of
from qa_lm.errors import UserError

SCORED_PAIRS, SCORED_TOKENS = 32, 2048
"""Minimum number of padded rows, and of positions of packed rows, that are scored at once. Without gradients they need
little memory, and small batches take almost as long as large ones (docs/log.md, "fine-tuning, faster")."""


class _Rows(Dataset[Any]):
    """Passes the sampler's rows through, because the collate function reads the examples of a batch at once."""

    def __getitem__(self, row: Row) -> Row:
        return row


class PairsDataModule(pl.LightningDataModule):
    """Batches of packed or padded rows of pairs that end with EOS.

    Validation uses the held-out pairs and then a fixed sample of the trained ones, test the test pairs, and prediction
    all pairs of the split in the order of the table. In a script, `from_config` reads the pairs:

        data = PairsDataModule.from_config(DataConfig(path="faq.jsonl"), TokenizerConfig("bpe"))
        vocab_size = len(data.prepared.tokenizer)
        Trainer().fit(module, datamodule=data)

    Args:
        examples: the encoded pairs; None if `from_config` is used.
        split: indices of the pairs per split; None if `from_config` is used.
        batch_size: rows per training step and process.
        shuffle: whether each epoch has a different order.
        seed: random seed of the order and of the sample.
        train_on_question: whether the tokens of the question carry loss too.
        row_tokens: positions of a packed row; None for one pair per row.
        recall_pairs: size of the sample of trained pairs.
        workers: number of worker processes that build training batches; 0 for the training process itself.
        rewritten: rewrites a share of the training questions in each epoch; None leaves all as they stand.
    """

    examples: EncodedPairs
    split: Split

    def __init__(
        self,
        examples: EncodedPairs | None,
        split: Split | None,
        batch_size: int,
        shuffle: bool,
        seed: int,
        train_on_question: bool,
        row_tokens: int | None,
        recall_pairs: int = 0,
        workers: int = 0,
        rewritten: RewrittenPrompts | None = None,
    ) -> None:
        super().__init__()
        self.batch_size, self.shuffle, self.seed, self.workers = batch_size, shuffle, seed, workers
        self.train_on_question, self.recall_pairs, self.begin = train_on_question, recall_pairs, (0, 0)
        self._prepare: Callable[[], PreparedData] | None = None
        self._augment: tuple[float, int | None] = (0.0, None)
        if examples is not None and split is not None:
            self._set_pairs(examples, split, row_tokens, rewritten)

    @classmethod
    def from_config(
        cls,
        data: DataConfig,
        tokenizer: TokenizerConfig,
        context: int | None = 256,
        seed: int = 42,
        recall_pairs: int = 0,
    ) -> "PairsDataModule":
        """Create a data module that reads, splits and encodes the pairs on first use, or loads them from the cache.

        Args:
            data: files, split, batches.
            tokenizer: tokenizer settings.
            context: maximum sequence length of the model in tokens; None for the longest pair.
            seed: random seed of the order of the pairs and of the sample.
            recall_pairs: size of the sample of trained pairs for validation; 0 for none.

        Raises:
            UserError: `data.batch_size` is null; only `train` chooses it.
        """
        if data.batch_size is None:
            raise UserError("data.batch_size: is null; a data module needs a number", "data.batch_size")
        on_question = data.train_on is TrainOn.all
        module = cls(None, None, data.batch_size, data.shuffle, seed, on_question, None, recall_pairs, data.workers)
        module._prepare = partial(prepare, data, tokenizer, context)
        module._augment = (data.augment, context)
        return module

    @cached_property
    def prepared(self) -> PreparedData:
        """Pairs, split and tokenizer, read on first use; only with `from_config`.

        Raises:
            UserError: the files, the split or the tokenizer are invalid.
        """
        assert self._prepare, "only with from_config"
        return self._prepare()

    def prepare_data(self) -> None:
        """Fill the cache before other processes read it."""
        if self._prepare:
            assert self.prepared

    def setup(self, stage: str | None = None) -> None:
        """Use the prepared pairs; the stage does not matter."""
        if self._prepare and not hasattr(self, "examples"):
            prepared = self.prepared
            rewritten = prepared.rewritten_prompts(self.seed, *self._augment)
            self._set_pairs(prepared.examples, prepared.split, prepared.row_tokens, rewritten)

    def _set_pairs(
        self, examples: EncodedPairs, split: Split, row_tokens: int | None, rewritten: RewrittenPrompts | None
    ) -> None:
        self.examples, self.split, self.row_tokens = examples, split, row_tokens
        self.room = rewritten.room if rewritten else 0
        self.collate = Collate(examples, self.train_on_question, row_tokens)
        self.train_collate = Collate(examples, self.train_on_question, row_tokens, rewritten)
        self.train_rows = self._train_rows()
        self.recall_sample = self._sample(split.train)

    def begin_at(self, epoch: int, batches: int) -> None:
        """Resume training in an epoch, counted from 0, after its first `batches` batches."""
        self.begin = (epoch, batches)

    def limit_recall_sample(self, batches: int, processes: int) -> None:
        """Draw the sample only from pairs that an epoch of `batches` batches trains first."""
        rows = self._train_rows((0, processes))
        if batches < rows.batches:
            self.recall_sample = self._sample(rows.first_examples(batches))

    def validated(self, batches: int, processes: int) -> np.ndarray:
        """Indices of the held-out pairs in the first batches of a validation."""
        return self._scored_rows(self.split.validation, (0, processes)).first_examples(batches)

    def batches(self, processes: int) -> tuple[int, int]:
        """Number of batches per process in an epoch and in a validation of the held-out pairs, without a limit."""
        train = self._train_rows((0, processes))
        return train.batches, self._scored_rows(self.split.validation, (0, processes)).batches

    def train_dataloader(self) -> DataLoader[Batch]:
        """Batches of the training pairs, each pair once per epoch."""
        if self._processes() != (0, 1):  # not known before
            self.train_rows = self._train_rows()
        self.train_rows.begin_at(*self.begin)
        return self._loader(self.train_rows, self.train_collate, self.workers)

    def val_dataloader(self) -> list[DataLoader[Batch]]:
        """Batches of the validation pairs, if any, and of the trained sample; each pair once, in a fixed order."""
        sides = [self.split.validation, self.recall_sample]
        return [self._loader(self._scored_rows(side), self.collate) for side in sides if len(side)]

    def test_dataloader(self) -> DataLoader[Batch]:
        """Batches of the test pairs, each pair once.

        Raises:
            UserError: the split has no test pairs.
        """
        if not len(self.split.test):
            raise UserError("the data has no test pairs; name their files in data.test_path", "data.test_path")
        return self._loader(self._scored_rows(self.split.test), self.collate)

    def predict_dataloader(self) -> DataLoader[Batch]:
        """Batches of all pairs, each pair once; with `shuffle`, sorted by length."""
        return self._loader(self._scored_rows(ascending(self.split[:3], len(self.examples))), self.collate)

    def _sample(self, trained: np.ndarray) -> np.ndarray:
        size = min(self.recall_pairs, len(trained))
        return np.sort(np.random.default_rng(self.seed).choice(trained, size, replace=False))

    def _scored_rows(self, indices: np.ndarray, process: tuple[int, int] | None = None) -> PackedRows | PaddedRows:
        batch_size = max(self.batch_size, SCORED_TOKENS // self.row_tokens if self.row_tokens else SCORED_PAIRS)
        if self.shuffle:  # the order is free, and sorting by length needs the least padding
            indices = each_block(lambda block: indices[block], order_of(self.examples.lengths(indices)), indices.dtype)
        return self._rows(indices, batch_size, False, process)

    def _train_rows(self, process: tuple[int, int] | None = None) -> PackedRows | PaddedRows:
        return self._rows(self.split.train, self.batch_size, self.shuffle, process, self.room)

    def _rows(
        self, indices: np.ndarray, batch_size: int, shuffle: bool, process: tuple[int, int] | None, room: int = 0
    ) -> PackedRows | PaddedRows:
        lengths = self.examples.lengths(indices)
        rank, processes = process or self._processes()
        if self.row_tokens:
            return PackedRows(indices, lengths, shuffle, self.seed, batch_size, self.row_tokens, rank, processes, room)
        return PaddedRows(indices, lengths, shuffle, self.seed, batch_size, rank, processes)

    def _processes(self) -> tuple[int, int]:
        """Rank of this process and number of processes."""
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    def _loader(self, rows: PackedRows | PaddedRows, collate: Collate, workers: int = 0) -> DataLoader[Batch]:
        return DataLoader(
            _Rows(),
            batch_size=rows.batch_size,
            sampler=rows,
            collate_fn=collate,
            num_workers=workers,
            # A separate generator, so that creating an iterator does not change the global one, which dropout uses.
            generator=torch.Generator().manual_seed(self.seed),
        )
