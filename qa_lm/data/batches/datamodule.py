"""The LightningDataModule: encoded pairs in, batches out."""

from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from qa_lm.batch import Batch
from qa_lm.data.batches.batching import PackedRows, PaddedRows, Row
from qa_lm.data.batches.collate import Collate
from qa_lm.data.batches.store import EncodedPairs
from qa_lm.data.splits import Split


class _Rows(Dataset[Any]):
    """The sampler's rows as they are: the collate function reads the examples of a whole batch at once."""

    def __getitem__(self, row: Row) -> Row:
        return row


class PairsDataModule(pl.LightningDataModule):
    """EOS-terminated, shifted pairs, in batches of packed or padded rows.

    Validation goes over the held-out pairs and then over a fixed sample of the trained ones.

    Args:
        examples: the encoded pairs.
        split: which of them are trained and which held out.
        batch_size: rows per training step and process.
        shuffle: whether each epoch has an order of its own.
        seed: seed of that order and of the sample.
        train_on_question: whether the question's tokens carry loss too.
        row_tokens: positions of a packed row; None for one pair per row.
        recall_pairs: size of the sample of trained pairs.
        workers: processes that prepare training batches; 0 for the training process itself.
    """

    def __init__(
        self,
        examples: EncodedPairs,
        split: Split,
        batch_size: int,
        shuffle: bool,
        seed: int,
        train_on_question: bool,
        row_tokens: int | None,
        recall_pairs: int = 0,
        workers: int = 0,
    ) -> None:
        super().__init__()
        self.examples, self.split = examples, split
        self.batch_size, self.shuffle, self.seed = batch_size, shuffle, seed
        self.row_tokens, self.workers = row_tokens, workers
        self.begin = (0, 0)
        self.collate = Collate(examples, train_on_question, row_tokens)
        self.train_rows = self._rows(split.train, batch_size, shuffle)
        self.recall_pairs = recall_pairs
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
