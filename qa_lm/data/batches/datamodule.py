"""The LightningDataModule: encoded pairs in, batches out."""

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
from qa_lm.data.batches.store import EncodedPairs
from qa_lm.data.prepare import PreparedData, prepare
from qa_lm.data.splits.draw import Split
from qa_lm.errors import UserError


class _Rows(Dataset[Any]):
    """The sampler's rows as they are: the collate function reads the examples of a whole batch at once."""

    def __getitem__(self, row: Row) -> Row:
        return row


class PairsDataModule(pl.LightningDataModule):
    """EOS-terminated, shifted pairs, in batches of packed or padded rows.

    Validation goes over the held-out pairs and then over a fixed sample of the trained ones, a test over the test
    pairs, prediction over all pairs of the split in the table's order. In a script, `from_config` reads the pairs:

        data = PairsDataModule.from_config(DataConfig(path="faq.jsonl"), TokenizerConfig("bpe"))
        vocab_size = len(data.prepared.tokenizer)
        Trainer().fit(module, datamodule=data)

    Args:
        examples: the encoded pairs; None with `from_config`, whose `setup` reads them.
        split: which of them are trained and which held out; None likewise.
        batch_size: rows per training step and process.
        shuffle: whether each epoch has an order of its own.
        seed: seed of that order and of the sample.
        train_on_question: whether the question's tokens carry loss too.
        row_tokens: positions of a packed row; None for one pair per row.
        recall_pairs: size of the sample of trained pairs.
        workers: processes that prepare training batches; 0 for the training process itself.
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
    ) -> None:
        super().__init__()
        self.batch_size, self.shuffle, self.seed, self.workers = batch_size, shuffle, seed, workers
        self.train_on_question, self.recall_pairs, self.begin = train_on_question, recall_pairs, (0, 0)
        self._prepare: Callable[[], PreparedData] | None = None
        if examples is not None and split is not None:
            self._take(examples, split, row_tokens)

    @classmethod
    def from_config(
        cls,
        data: DataConfig,
        tokenizer: TokenizerConfig,
        context: int | None = 256,
        seed: int = 42,
        recall_pairs: int = 0,
    ) -> "PairsDataModule":
        """Pairs that are read, split and encoded where they are first needed, or found in the cache.

        Args:
            data: files, split, batches.
            tokenizer: text to ids.
            context: the most tokens that the model sees at once; None for as many as the pairs need.
            seed: seed of the order of the pairs and of the sample.
            recall_pairs: size of the sample of trained pairs that validation goes over too; 0 for none.

        Raises:
            UserError: `data.batch_size` is null, which only a run chooses.
        """
        if data.batch_size is None:
            raise UserError("data.batch_size: null; a data module needs a number", "data.batch_size")
        on_question = data.train_on is TrainOn.all
        module = cls(None, None, data.batch_size, data.shuffle, seed, on_question, None, recall_pairs, data.workers)
        module._prepare = partial(prepare, data, tokenizer, context)
        return module

    @cached_property
    def prepared(self) -> PreparedData:
        """Pairs, split and tokenizer of `from_config`, read on first use.

        Raises:
            UserError: the files, the split or the tokenizer are at fault.
        """
        assert self._prepare, "only a data module from_config prepares its pairs"
        return self._prepare()

    def prepare_data(self) -> None:
        """Fill the cache, before other processes read it."""
        if self._prepare:
            assert self.prepared

    def setup(self, stage: str | None = None) -> None:
        """Take the prepared pairs, whatever the stage."""
        if self._prepare and not hasattr(self, "examples"):
            self._take(self.prepared.examples, self.prepared.split, self.prepared.row_tokens)

    def _take(self, examples: EncodedPairs, split: Split, row_tokens: int | None) -> None:
        self.examples, self.split, self.row_tokens = examples, split, row_tokens
        self.collate = Collate(examples, self.train_on_question, row_tokens)
        self.train_rows = self._rows(split.train, self.batch_size, self.shuffle)
        self.recall_sample = self._sample(split.train)

    def begin_at(self, epoch: int, batches: int) -> None:
        """Let training go on in this epoch, counted from 0, after so many of its batches."""
        self.begin = (epoch, batches)

    def limit_recall_sample(self, batches: int, processes: int) -> None:
        """Draw the sample from the pairs that the first epoch trains, where it has only so many batches."""
        rows = self._rows(self.split.train, self.batch_size, self.shuffle, (0, processes))
        if batches < rows.batches:
            self.recall_sample = self._sample(rows.first_examples(batches))

    def validated(self, batches: int, processes: int) -> np.ndarray:
        """The held-out pairs in the first so many batches of a validation."""
        return self._scored_rows(self.split.validation, (0, processes)).first_examples(batches)

    def batches(self, processes: int) -> tuple[int, int]:
        """How many a process has in an epoch, and in a validation of the held-out pairs, without a limit."""
        train = self._rows(self.split.train, self.batch_size, self.shuffle, (0, processes))
        return train.batches, self._scored_rows(self.split.validation, (0, processes)).batches

    def train_dataloader(self) -> DataLoader[Batch]:
        """Batches of the training pairs, each pair once per epoch."""
        if self._processes() != (0, 1):  # known only now
            self.train_rows = self._rows(self.split.train, self.batch_size, self.shuffle)
        self.train_rows.begin_at(*self.begin)
        return self._loader(self.train_rows, self.workers)

    def val_dataloader(self) -> list[DataLoader[Batch]]:
        """Batches of the validation pairs, if any, and of the trained sample, each pair once, always the same."""
        sides = [self.split.validation, self.recall_sample]
        return [self._loader(self._scored_rows(side)) for side in sides if len(side)]

    def test_dataloader(self) -> DataLoader[Batch]:
        """Batches of the test pairs, each pair once.

        Raises:
            UserError: there are none.
        """
        if not len(self.split.test):
            raise UserError("there are no test pairs; name their files in data.test_path", "data.test_path")
        return self._loader(self._scored_rows(self.split.test))

    def predict_dataloader(self) -> DataLoader[Batch]:
        """Batches of all pairs, each pair once; with `shuffle`, pairs of like length are together."""
        return self._loader(self._scored_rows(np.unique(np.concatenate(self.split[:3]))))

    def _sample(self, trained: np.ndarray) -> np.ndarray:
        size = min(self.recall_pairs, len(trained))
        return np.sort(np.random.default_rng(self.seed).choice(trained, size, replace=False))

    def _scored_rows(self, indices: np.ndarray, process: tuple[int, int] | None = None) -> PackedRows | PaddedRows:
        batch_size = self.batch_size if self.row_tokens else max(self.batch_size, 32)
        if self.shuffle:  # no order is asked for: neighbours of one length need the least padding
            indices = indices[np.argsort(self.examples.lengths(indices), kind="stable")]
        return self._rows(indices, batch_size, False, process)

    def _rows(
        self, indices: np.ndarray, batch_size: int, shuffle: bool, process: tuple[int, int] | None = None
    ) -> PackedRows | PaddedRows:
        lengths = self.examples.lengths(indices)
        rank, processes = process or self._processes()
        if self.row_tokens:
            return PackedRows(indices, lengths, shuffle, self.seed, batch_size, self.row_tokens, rank, processes)
        return PaddedRows(indices, lengths, shuffle, self.seed, batch_size, rank, processes)

    def _processes(self) -> tuple[int, int]:
        """Number of this process and how many there are."""
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    def _loader(self, rows: PackedRows | PaddedRows, workers: int = 0) -> DataLoader[Batch]:
        return DataLoader(
            _Rows(),
            batch_size=rows.batch_size,
            sampler=rows,
            collate_fn=self.collate,
            num_workers=workers,
            # A generator of its own, so that making an iterator draws nothing from the global one (dropout's).
            generator=torch.Generator().manual_seed(self.seed),
        )
