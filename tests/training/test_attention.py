"""The attention of training: plain products in packed rows on a CPU, and the usual one everywhere else."""

import lightning.pytorch as pl
import pytest

from qa_lm.inference.answerer import load_causal_lm
from qa_lm.training.attention import attention_for_training
from qa_lm.training.custom import CustomParts
from qa_lm.training.train import train
from tests.conftest import small_config


@pytest.mark.parametrize(
    ("packing", "row", "attention"), [(True, 512, "eager"), (True, 513, "sdpa"), (False, 8, "sdpa")]
)
def test_training_in_rows_uses_eager_attention_on_a_cpu(learnt_run, packing, row, attention):
    """Only training: in the rows of an evaluation it could need gigabytes."""
    model, config = (
        load_causal_lm(learnt_run.folder / "model"),
        small_config(data__packing=packing, data__row_tokens=row),
    )
    with attention_for_training(model, config):
        assert model.config._attn_implementation == attention
    assert model.config._attn_implementation == "sdpa"


class Attention(pl.Callback):
    """Notes the attention of each step."""

    def __init__(self):
        self.seen = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.seen.append((pl_module, pl_module.model.config._attn_implementation))


def test_a_run_trains_with_plain_products_and_answers_without(tmp_path):
    noted = Attention()
    config = small_config(data__packing=True, data__row_tokens=128, trainer__max_epochs=1)
    train(config, tmp_path, custom=CustomParts(callbacks=[noted]))
    module, _ = noted.seen[0]
    assert {attention for _, attention in noted.seen} == {"eager"}
    assert module.model.config._attn_implementation == "sdpa"
