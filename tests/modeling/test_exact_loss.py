"""The gradient of a step is that of the mean over all its tokens, however they are cut into rows, batches, windows and
processes."""

import math
from itertools import chain

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from qa_lm.batch import UNTRAINED
from qa_lm.data.batches.batching import Row
from qa_lm.data.batches.collate import Collate
from qa_lm.data.batches.datamodule import PairsDataModule
from qa_lm.data.splits.draw import Split
from qa_lm.modeling.module import CausalLMModule
from tests.conftest import builtin, encoded
from tests.modeling.test_modeling import build

ROW = 36
PAIRS = 10


class Recorder(torch.optim.SGD):
    """Keeps the gradients of each step and changes nothing."""

    def __init__(self, model):
        super().__init__(model.parameters(), lr=0.0)
        self.seen = []

    def step(self, closure=None):
        closure()
        self.seen.append([p.grad.clone() for group in self.param_groups for p in group["params"]])


@pytest.fixture(scope="module")
def store(gpt2, template, tmp_path_factory):
    return encoded(builtin("tutorial"), gpt2, template, tmp_path_factory.mktemp("store"))


def recorded(store, batch_size, accumulate, packed, mean_per_pair, precision="32-true", clip=None):
    """Gradients of each optimizer step of an epoch, and the pairs that each step saw."""
    everything = np.arange(PAIRS)
    split = Split(everything, everything[:3], everything[:0], np.zeros(3, np.int8))
    row = ROW if packed else None
    data = PairsDataModule(store, split, batch_size, False, 0, True, row, recall_pairs=4)
    optimizers = []

    def make(model):
        optimizers.append(Recorder(model))
        return optimizers[-1]

    module = CausalLMModule(build(), make, lambda step: 1.0, mean_per_pair, answer_bytes=1)
    trainer = pl.Trainer(
        max_epochs=1,
        accelerator="cpu",
        precision=precision,
        accumulate_grad_batches=accumulate,
        gradient_clip_val=clip,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    trainer.fit(module, datamodule=data)
    rows = list(data.train_rows)
    window = batch_size * accumulate
    steps = [
        list(chain.from_iterable(row.examples for row in rows[begin : begin + window]))
        for begin in range(0, len(rows), window)
    ]
    return optimizers[0].seen, steps, trainer


def by_hand(store, pairs, mean_per_pair):
    """The loss as the definition has it: one pair at a time, transformers' own logits."""
    model, losses = build(), []
    for pair in pairs:
        alone = Collate(store, True)([Row([pair])])
        losses.append(F.cross_entropy(model(alone.inputs).logits[0], alone.targets[0], reduction="none"))
    loss = torch.stack([each.mean() for each in losses]).mean() if mean_per_pair else torch.cat(losses).mean()
    return torch.autograd.grad(loss, list(model.parameters()))


@pytest.mark.parametrize("mean_per_pair", [False, True])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(("batch_size", "accumulate"), [(1, 1), (3, 1), (10, 1), (1, 4), (2, 2), (1, 10)])
def test_every_cut_gives_the_gradient_of_the_mean(store, batch_size, accumulate, packed, mean_per_pair):
    """Absolute tolerance 1e-6 and relative 1e-4, in float32; gradients are up to about 0.1."""
    gradients, steps, _ = recorded(store, batch_size, accumulate, packed, mean_per_pair)
    assert sorted(chain(*steps)) == list(range(PAIRS))
    if accumulate in (2, 4):
        assert len(steps[-1]) < len(steps[0])  # a short last window
    assert len(gradients) == len(steps)
    for found, pairs in zip(gradients, steps, strict=True):
        for ours, expected in zip(found, by_hand(store, pairs, mean_per_pair), strict=True):
            torch.testing.assert_close(ours, expected, atol=1e-6, rtol=1e-4)


def test_in_bfloat16_it_is_the_same_to_its_digits(store):
    """Relative to the whole gradient's length: 2%."""
    gradients, steps, _ = recorded(store, 10, 1, True, False, precision="bf16-mixed")
    for ours, expected in zip(gradients[0], by_hand(store, steps[0], False), strict=True):
        assert (ours - expected).norm() < 0.02 * expected.norm() + 1e-5


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_gradients_are_clipped_after_they_are_put_right(store, precision):
    free, _, _ = recorded(store, 2, 2, True, False, precision)
    clipped, _, _ = recorded(store, 2, 2, True, False, precision, clip=0.25)
    for before, after in zip(free, clipped, strict=True):
        length = math.sqrt(sum(float(each.pow(2).sum()) for each in before))
        assert length > 0.25
        for one, other in zip(before, after, strict=True):
            torch.testing.assert_close(other, one * (0.25 / length), atol=1e-6, rtol=1e-3)


def test_each_validation_pair_counts_once_and_the_sample_is_of_trained_pairs(store):
    _, _, trainer = recorded(store, 4, 1, True, False)
    metrics, model = trainer.callback_metrics, build()
    held_out = [Collate(store, True)([Row([pair])]) for pair in range(3)]
    losses = [F.cross_entropy(model(b.inputs).logits[0], b.targets[0], reduction="none") for b in held_out]
    assert float(metrics["val/loss"]) == pytest.approx(float(torch.cat(losses).mean()), abs=1e-5)
    answers = [loss[batch.in_answer[0]] for loss, batch in zip(losses, held_out, strict=True)]
    assert float(metrics["val/bits_per_answer_byte"]) == pytest.approx(
        float(torch.cat(answers).sum()) / math.log(2), rel=1e-5
    )
    assert float(metrics["train/recall"]) == 0
    assert -1 / 4 < float(metrics["train/recall_then_loss"]) < 0


def test_a_batch_without_pairs_adds_nothing(store):
    empty = Collate(store, True, ROW)([Row([]), Row([])])
    assert (empty.pairs, empty.tokens) == (0, 0)
    assert (empty.targets == UNTRAINED).all()
    module = CausalLMModule(build(), Recorder, lambda step: 1.0, False, 1)
    sums = module(empty)
    assert [float(each) for each in sums[:4]] == [0, 0, 0, 0]
    sums.loss.backward()
    assert all(p.grad is None or not p.grad.any() for p in module.parameters())
