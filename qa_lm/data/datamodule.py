"""The LightningDataModule: pairs in, batches out."""

from collections.abc import Iterator
from functools import partial

import lightning.pytorch as pl
import torch
from torch.utils.data import DataLoader, Sampler

from qa_lm.batch import Batch
from qa_lm.data.collate import collate
from qa_lm.data.encoding import Example, PromptTemplate, encode_pairs
from qa_lm.data.splits import Split
from qa_lm.data.tokenizer import TextTokenizer


class EpochOrder(Sampler[int]):
    """The order of the examples: as they are, or a permutation that is a function of seed and epoch alone.

    Lightning calls `set_epoch` before each epoch.
    """

    def __init__(self, count: int, shuffle: bool, seed: int) -> None:
        self.count, self.shuffle, self.seed, self.epoch = count, shuffle, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order comes next."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[int]:
        if not self.shuffle:
            return iter(range(self.count))
        # One generator per (seed, epoch): the order never depends on what drew random numbers before.
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        return iter(torch.randperm(self.count, generator=generator).tolist())


class PairsDataModule(pl.LightningDataModule):
    """EOS-terminated, shifted pairs, in batches.

    Args:
        split: the pairs that are trained and those held out.
        tokenizer: text to ids.
        template: how question and answer are written.
        context: the most tokens the model sees at once.
        batch_size: pairs per training step.
        shuffle: whether each epoch has an order of its own.
        seed: seed of that order.
        train_on_question: whether the question's tokens carry loss too.

    Raises:
        UserError: a pair is longer than the context.
    """

    def __init__(
        self,
        split: Split,
        tokenizer: TextTokenizer,
        template: PromptTemplate,
        context: int,
        batch_size: int,
        shuffle: bool,
        seed: int,
        train_on_question: bool,
    ) -> None:
        super().__init__()
        self.train_examples = encode_pairs(split.train, tokenizer, template, context)
        self.validation_examples = encode_pairs(split.validation, tokenizer, template, context)
        self.batch_size, self.shuffle, self.seed = batch_size, shuffle, seed
        self.train_on_question = train_on_question

    def train_dataloader(self) -> DataLoader[Batch]:
        """Batches of the training pairs, each pair once per epoch."""
        return self._loader(self.train_examples, self.batch_size, self.shuffle)

    def val_dataloader(self) -> DataLoader[Batch]:
        """Batches of the validation pairs, each pair once, always in the same order."""
        return self._loader(self.validation_examples, max(self.batch_size, 32), shuffle=False)

    def _loader(self, examples: list[Example], batch_size: int, shuffle: bool) -> DataLoader[Batch]:
        return DataLoader(
            examples,  # type: ignore[arg-type]  # a list is a map-style dataset
            batch_size=batch_size,
            sampler=EpochOrder(len(examples), shuffle, self.seed),
            collate_fn=partial(collate, train_on_question=self.train_on_question),
            # A generator of its own, so that making an iterator draws nothing from the global one (dropout's).
            generator=torch.Generator().manual_seed(self.seed),
        )
