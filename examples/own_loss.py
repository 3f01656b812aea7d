"""A loss of your own: label smoothing. Run it by `python examples/own_loss.py`."""

from functools import partial

from torch import Tensor, nn

import qa_lm
from qa_lm.batch import UNTRAINED, Batch
from qa_lm.modeling.loss import LossSums, batch_loss


def label_smoothing(hidden: Tensor, head: nn.Linear, batch: Batch, amount: float = 0.1) -> LossSums:
    """Cross-entropy with a target that gives every token of the vocabulary a share of `amount`.

    Args:
        hidden: hidden states, (rows, time, hidden_size).
        head: from hidden states to logits.
        batch: targets and the pair of each position, (rows, time).
        amount: 0 is the usual loss.
    """
    sums = batch_loss(hidden, head, batch, mean_per_pair=True)
    trained = batch.targets != UNTRAINED
    uniform = -head(hidden[trained]).float().log_softmax(-1).mean(-1)  # (trained positions,)
    pair = batch.pair[trained]
    weights = 1 / pair.bincount(minlength=batch.pairs)[pair]  # every pair counts the same, as in `batch_loss`
    return sums._replace(loss=(1 - amount) * sums.loss + amount * (weights * uniform).sum())


if __name__ == "__main__":
    config = qa_lm.compose("model=tiny", "optimizer.lr=1e-3", "tokenizer=bpe", "trainer.max_epochs=20")
    run = qa_lm.train(config, loss=partial(label_smoothing, amount=0.1))
    print(run.metrics["recall"])
