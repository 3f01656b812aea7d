"""What to change if a budget is too small, and about how much of an epoch each change saves."""

from dataclasses import dataclass

from qa_lm.config.schema import TrainConfig
from qa_lm.data.prepare import PreparedData
from qa_lm.modeling.causal_lm import blocks, head, parameter_count
from qa_lm.training.build import Task

SMALLEST_VOCABULARY = 512
"""Tokens of a vocabulary below which it is not worth halving: texts become as long as their bytes."""
LONGER_TEXTS = 1.17
"""Tokens of a text with half of the vocabulary, as a multiple. Measured: docs/log.md, "a budget of time"."""


@dataclass(frozen=True)
class Sizes:
    """Sizes of a model and its data."""

    body: int
    """Parameters that each token is multiplied with, apart from the head."""
    head: int
    """Parameters of the head."""
    width: int
    vocabulary: int
    pairs: int
    """Training pairs."""
    pretrained: bool

    @property
    def narrower(self) -> float:
        """Work of a model of half the width, as a share of this one's."""
        return (self.body / 4 + self.head / 2) / (self.body + self.head)

    @property
    def fewer_tokens(self) -> float:
        """Work with half the vocabulary, as a share of this one's."""
        return LONGER_TEXTS * (self.body + self.head / 2) / (self.body + self.head)


def sizes_of(config: TrainConfig, prepared: PreparedData, task: Task) -> Sizes:
    """Return the sizes of a task."""
    model = task.module.model
    outputs = head(model)
    return Sizes(
        body=max(1, sum(map(parameter_count, blocks(model)))),
        head=parameter_count(outputs),
        width=outputs.in_features,
        vocabulary=len(prepared.tokenizer),
        pairs=len(prepared.split.train),
        pretrained=config.model.path is not None,
    )


def ways_out(sizes: Sizes, share: float | None) -> list[str]:
    """Return what would make epochs shorter, as text.

    Args:
        sizes: sizes of model and data.
        share: share of the needed epochs that fit; None if not even one does.
    """
    less = "of an epoch"
    ways = []
    if sizes.pretrained:
        ways.append("a smaller pretrained model: half of its parameters save about half of an epoch")
    else:
        ways.append(
            f"a smaller model: model.hidden_size={sizes.width // 2} saves up to {1 - sizes.narrower:.0%} {less}, but "
            "may need more epochs"
        )
    if sizes.fewer_tokens < 0.97 and sizes.vocabulary >= 2 * SMALLEST_VOCABULARY:
        half = f"tokenizer.vocab_size={sizes.vocabulary // 2}" if not sizes.pretrained else "half of the tokens"
        ways.append(f"a smaller vocabulary: {half} saves up to {1 - sizes.fewer_tokens:.0%} {less}")
    fewer = max(1, int(sizes.pairs * (share or 0.5)))
    saved = 1 - fewer / sizes.pairs
    if saved > 0:
        ways.append(f"fewer pairs: data.train_pairs={fewer} of {sizes.pairs:,} saves about {saved:.0%} {less}")
    return ways
