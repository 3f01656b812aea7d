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
WORTH = 0.97
"""Share of the work above which a smaller vocabulary is not named."""
KEPT_MERGES = 8192
"""`tokenizer.trim` that is named."""


@dataclass(frozen=True)
class Sizes:
    """Sizes of a model and its data."""

    body: int
    """Parameters that each token is multiplied with, apart from the head."""
    head: int
    """Parameters of the head."""
    width: int
    feed_forward: int | None
    """Width of the feed-forward layer, if it is a setting."""
    vocabulary: int
    chosen_vocabulary: bool
    """Whether `tokenizer.vocab_size` is the size of the vocabulary."""
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

    @property
    def trimmed(self) -> float:
        """Work with a trimmed vocabulary, as a share of this one's, if texts have as many tokens."""
        share = min(1.0, KEPT_MERGES / self.vocabulary)
        return (self.body + self.head * share) / (self.body + self.head)


def sizes_of(config: TrainConfig, prepared: PreparedData, task: Task) -> Sizes:
    """Return the sizes of a task."""
    model = task.module.model
    outputs = head(model)
    return Sizes(
        body=max(1, sum(map(parameter_count, blocks(model)))),
        head=parameter_count(outputs),
        width=outputs.in_features,
        feed_forward=config.model.extra.get("intermediate_size"),
        vocabulary=len(prepared.tokenizer),
        chosen_vocabulary=config.tokenizer.kind == "bpe",
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
        wide = f" +model.extra.intermediate_size={sizes.feed_forward // 2}" if sizes.feed_forward else ""
        ways.append(
            f"a smaller model: model.hidden_size={sizes.width // 2}{wide} saves up to {1 - sizes.narrower:.0%} {less}, "
            "but may need more epochs"
        )
    ways += _smaller_vocabulary(sizes, less)
    fewer = max(1, int(sizes.pairs * (share or 0.5)))
    saved = 1 - fewer / sizes.pairs
    if saved > 0:
        ways.append(f"fewer pairs: data.train_pairs={fewer} of {sizes.pairs:,} saves about {saved:.0%} {less}")
    return ways


def _smaller_vocabulary(sizes: Sizes, less: str) -> list[str]:
    if sizes.chosen_vocabulary and sizes.fewer_tokens < WORTH and sizes.vocabulary >= 2 * SMALLEST_VOCABULARY:
        half = f"tokenizer.vocab_size={sizes.vocabulary // 2}"
        return [f"a smaller vocabulary: {half} saves up to {1 - sizes.fewer_tokens:.0%} {less}"]
    if not sizes.chosen_vocabulary and sizes.trimmed < WORTH:
        lost = ", but unseen questions are answered worse" if sizes.pretrained else ""
        return [f"a smaller vocabulary: tokenizer.trim={KEPT_MERGES} saves up to {1 - sizes.trimmed:.0%} {less}{lost}"]
    return []
