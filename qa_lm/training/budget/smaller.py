"""A smaller model where the recipe left its size open, if recall is then expected to fit the time."""

import math
from dataclasses import replace

from qa_lm.config.budget.settings import duration
from qa_lm.config.schema import TrainConfig
from qa_lm.data.prepare import Sizes
from qa_lm.training.budget.choose import Times, Wanted
from qa_lm.training.recipe import HEAD_WIDTH, MIN_WIDTH, depth, parameters, with_feed_forward

LEAST_PARAMETERS = 13
"""Parameters per token of an epoch with which a model still memorised a file; with 12 another file was not. The recipe
takes 16."""
MARGIN = 1.1
"""Factor on the expected time of an epoch of the smaller model, which is computed from its operations."""


class SmallerModel(Exception):
    """Training is to be prepared once more, with a smaller model.

    Args:
        config: the settings as they were given, with the size of the model.
    """

    def __init__(self, config: TrainConfig) -> None:
        super().__init__("a smaller model")
        self.config = config


def smaller_model(
    config: TrainConfig, given: TrainConfig, sizes: Sizes, times: Times, wanted: Wanted
) -> TrainConfig | None:
    """Return the given settings with the largest smaller model with which recall is expected to fit; None without one.

    The vocabulary that the recipe chooses is the one with which recall took least time; it is not changed.

    Args:
        config: settings without open (null) values.
        given: the settings as they were given.
        sizes: sizes of the pairs.
        times: measured and estimated seconds with the model of the recipe.
        wanted: the epochs without a budget.
    """
    model = given.model
    is_open = model.path is None and model._target_ is None and model.hidden_size is None and model.layers is None
    if not is_open or not wanted.until_recall or wanted.most_given or times.epochs >= wanted.needed:
        return None
    assert config.model.hidden_size
    assert config.model.layers
    tokens, vocabulary, now = int(sizes.lengths.sum()), sizes.vocab_size, config.model
    work = _work(now.hidden_size or 0, now.layers or 0, vocabulary)
    for width in range(config.model.hidden_size, MIN_WIDTH - 1, -HEAD_WIDTH):
        layers = depth(tokens, vocabulary, width, LEAST_PARAMETERS)
        share = _work(width, layers, vocabulary) / work
        # Preparing and measuring once more takes as long as before.
        again = replace(times, before=2 * times.before, epoch=MARGIN * share * times.epoch)
        if share * MARGIN < 1 and again.epochs >= wanted.needed:
            print(
                f"budget: {times.epochs:,} of {math.ceil(wanted.needed):,} epochs until recall fit "
                f"{duration(times.budget)}; a model of width {width} with {layers} "
                f"{'layers' if layers > 1 else 'layer'} takes about {share:.0%} of the time and is built instead",
                flush=True,
            )
            extra = with_feed_forward(model, width)
            return replace(given, model=replace(model, hidden_size=width, layers=layers, extra=extra))
    return None


def _work(width: int, layers: int, vocabulary: int) -> int:
    """Multiplications of a token: those of the head and of the blocks."""
    return parameters(width, layers, vocabulary) - vocabulary * width
