"""A data module of your own: a curriculum with short pairs first. Run it by `python examples/own_datamodule.py`."""

from typing import Any

import numpy as np

import qa_lm
from qa_lm.data.batches.store import EncodedPairs
from qa_lm.data.splits.draw import Split


class ShortPairsFirst(qa_lm.PairsDataModule):
    """Every epoch goes from the shortest training pair to the longest."""

    def __init__(self, *, examples: EncodedPairs, split: Split, **settings: Any) -> None:
        short_first = np.argsort(examples.lengths(split.train), kind="stable")
        split = split._replace(train=split.train[short_first])
        super().__init__(examples=examples, split=split, **settings | {"shuffle": False})


if __name__ == "__main__":
    config = qa_lm.compose("model=tiny", "optimizer.lr=1e-3", "tokenizer=bpe", "trainer.max_epochs=20")
    run = qa_lm.train(config, datamodule=ShortPairsFirst)
    print(run.metrics["recall"])
