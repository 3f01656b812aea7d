"""The attention of training: in packed rows on a CPU plain matrix products are faster than fused attention."""

from collections.abc import Iterator
from contextlib import contextmanager

from transformers import PreTrainedModel

from qa_lm.config.schema import TrainConfig
from qa_lm.training.hardware import device_of

LONGEST_ROW = 512
"""Maximum number of tokens of a row for plain products. Steps of rows of 64 to 1,024 tokens are 8% to 28% faster, but
almost 6 bytes of each score are kept: with 512 tokens activations are 11% to 31% larger, with 1,024 tokens 23% to 61%
(docs/log.md, "plain attention in longer rows")."""


@contextmanager
def attention_for_training(model: PreTrainedModel, config: TrainConfig) -> Iterator[None]:
    """Use the attention that trains fastest. Outside of training, rows may be longer and more."""
    usual = str(model.config._attn_implementation)
    set_attention_for_training(model, config, device_of(config.trainer).type == "cpu")
    try:
        yield
    finally:
        model.set_attn_implementation(usual)


def set_attention_for_training(model: PreTrainedModel, config: TrainConfig, on_cpu: bool) -> None:
    """Let a model use the attention that trains fastest. The results are the same.

    Args:
        model: the model, with or without memory.
        config: settings without open (null) values.
        on_cpu: whether it is trained on a CPU.
    """
    if on_cpu and config.data.packing and (config.data.row_tokens or 0) <= LONGEST_ROW:
        model.set_attn_implementation("eager")
