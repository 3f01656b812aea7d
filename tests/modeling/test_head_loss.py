"""The head's loss beside plain cross-entropy and argmax, in float64 and where numbers are extreme or equal."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from qa_lm.batch import UNTRAINED, Batch
from qa_lm.modeling import loss as loss_module
from qa_lm.modeling.loss import _head_loss, batch_loss

POSITIONS, WIDTH, ENTRIES = 23, 8, 50


@pytest.fixture(params=["at once", "in pieces"])
def pieces(request, monkeypatch):
    if request.param == "in pieces":
        monkeypatch.setattr(loss_module, "CHUNK_BYTES", 10 * ENTRIES * 8)
        monkeypatch.setattr(loss_module, "BLOCK_LOGITS", 3 * ENTRIES)
        monkeypatch.setattr(loss_module, "GRADIENT_ROWS", 7)


def head_of(logits):
    """A head that gives these logits for the rows of the unit matrix."""
    head = nn.Linear(logits.shape[0], logits.shape[1], bias=False, dtype=logits.dtype)
    head.weight.data = logits.T.clone()
    return head


@pytest.mark.parametrize("soft_cap", [None, 0.5])
@pytest.mark.parametrize("bias", [True, False])
def test_losses_gradients_and_exactness_are_those_of_cross_entropy(pieces, bias, soft_cap):
    torch.manual_seed(0)
    head = nn.Linear(WIDTH, ENTRIES, bias=bias, dtype=torch.float64)
    hidden = torch.randn(POSITIONS, WIDTH, dtype=torch.float64, requires_grad=True)
    logits = head(hidden) if soft_cap is None else soft_cap * torch.tanh(head(hidden) / soft_cap)
    targets = torch.randint(ENTRIES, (POSITIONS,))
    targets[::2] = logits.argmax(-1)[::2]
    weights = torch.rand(POSITIONS, dtype=torch.float64)
    expected = F.cross_entropy(logits, targets, reduction="none")
    wanted = torch.autograd.grad((expected * weights).sum() * 3, [hidden, *head.parameters()])
    total, losses, right = _head_loss(hidden, head, targets, weights, soft_cap)
    found = torch.autograd.grad(total * 3, [hidden, *head.parameters()])
    for ours, theirs in zip([losses, *found], [expected.detach(), *wanted], strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-12, rtol=1e-12)
    assert torch.equal(right, logits.argmax(-1) == targets)
    with torch.no_grad():
        plain = _head_loss(hidden, head, targets, weights, soft_cap)
    torch.testing.assert_close(plain[0], total.detach(), atol=1e-12, rtol=1e-12)
    assert torch.equal(plain[1], losses)
    assert torch.equal(plain[2], right)


def test_a_frozen_head_costs_no_gradient_of_its_weights(monkeypatch):
    torch.manual_seed(0)
    head, targets, weights = nn.Linear(WIDTH, ENTRIES), torch.randint(ENTRIES, (POSITIONS,)), torch.rand(POSITIONS)
    hidden = torch.randn(POSITIONS, WIDTH, requires_grad=True)
    (wanted,) = torch.autograd.grad(_head_loss(hidden, head, targets, weights)[0], hidden)
    monkeypatch.delattr(loss_module._Chunks, "add_weight_gradient")
    _head_loss(hidden, head.requires_grad_(False), targets, weights)[0].backward()
    torch.testing.assert_close(hidden.grad, wanted, rtol=0, atol=0)
    assert head.weight.grad is head.bias.grad is None


def test_gradients_are_scaled_in_place_so_a_second_backward_pass_is_refused():
    """The gradient of the weights is as large as the vocabulary: no second copy of it is made."""
    head, targets, weights = nn.Linear(WIDTH, ENTRIES), torch.randint(ENTRIES, (POSITIONS,)), torch.rand(POSITIONS)
    total, _, _ = _head_loss(torch.randn(POSITIONS, WIDTH), head, targets, weights)
    node: Any = total.grad_fn
    place = node.gradients[1].data_ptr()
    (total * 3).backward(retain_graph=True)
    gradient: Any = head.weight.grad
    assert gradient.data_ptr() == place
    with pytest.raises(RuntimeError, match="compute it again"):
        total.backward()


def test_of_equal_logits_the_first_is_the_answer_as_in_greedy_decoding(pieces):
    """bfloat16 makes equal logits often."""
    torch.manual_seed(0)
    logits = torch.randint(4, (POSITIONS, ENTRIES)).float()
    targets = torch.randint(ENTRIES, (POSITIONS,))
    best = [row.nonzero()[:, 0] for row in logits == logits.amax(-1, keepdim=True)]
    targets[:8] = torch.stack([places[0] for places in best[:8]])
    targets[8:16] = torch.stack([places[-1] for places in best[8:16]])
    assert all(len(places) > 1 for places in best)
    _, _, right = _head_loss(torch.eye(POSITIONS), head_of(logits), targets, torch.ones(POSITIONS))
    assert torch.equal(right, logits.argmax(-1) == targets)
    assert right[:8].all()
    assert not right[8:16].any()


@pytest.mark.parametrize("logit", [1000.0, 100.0, 60.0])
def test_a_target_of_almost_no_probability_and_a_certain_one_have_their_loss(pieces, logit):
    logits = torch.zeros(2, ENTRIES)
    logits[:, 3] = logit
    _, losses, right = _head_loss(torch.eye(2), head_of(logits), torch.tensor([5, 3]), torch.ones(2))
    assert losses.tolist() == pytest.approx([logit, 0.0], abs=1e-5)
    assert not losses.signbit().any()
    assert right.tolist() == [False, True]


@pytest.mark.parametrize("soft_cap", [None, 0.5])
def test_products_of_bfloat16_are_added_up_in_float32(pieces, soft_cap):
    torch.manual_seed(0)
    head = nn.Linear(64, ENTRIES, bias=False)
    hidden = torch.randn(200, 64, requires_grad=True)
    targets = torch.randint(ENTRIES, (200,))
    logits = head(hidden) if soft_cap is None else soft_cap * torch.tanh(head(hidden) / soft_cap)
    expected = F.cross_entropy(logits, targets, reduction="sum")
    wanted = torch.autograd.grad(expected, [hidden, head.weight])
    with torch.autocast("cpu", torch.bfloat16):
        total, losses, _ = _head_loss(hidden, head, targets, torch.ones(200), soft_cap)
    found = torch.autograd.grad(total, [hidden, head.weight])
    assert losses.dtype == torch.float32
    # 2 ** -9 is the rounding of one number; a sum kept in bfloat16 would lose more.
    for ours, theirs in zip(found, wanted, strict=True):
        assert ours.dtype == torch.float32
        assert (ours - theirs).norm() < 2**-8 * theirs.norm()
    torch.testing.assert_close(total, expected, atol=0, rtol=1e-3)


@pytest.mark.parametrize("share", [0.97, 0.4])
def test_the_head_meets_few_shapes_and_the_sums_stay_the_same(monkeypatch, share):
    """Batches of one size, of which more or less is trained: each number of rows would be prepared anew."""
    torch.manual_seed(0)
    head = nn.Linear(WIDTH, ENTRIES, dtype=torch.float64)
    met = set()

    def noted(hidden, *arguments):
        met.add(len(hidden))
        return _head_loss(hidden, *arguments)

    monkeypatch.setattr(loss_module, "_head_loss", noted)
    counts = set()
    for _ in range(20):
        hidden = torch.randn(16, 64, WIDTH, dtype=torch.float64, requires_grad=True)
        targets = torch.randint(ENTRIES, (16, 64))
        targets[torch.rand(16, 64) > share] = UNTRAINED
        counts.add(int((targets != UNTRAINED).sum()))
        pair = torch.arange(16)[:, None].expand(16, 64)
        batch = Batch(targets, targets, targets, pair, targets != UNTRAINED, torch.arange(16), 16, 1024)
        sums = batch_loss(hidden, head, batch, False)
        wanted = F.cross_entropy(head(hidden).flatten(0, 1), targets.flatten(), reduction="sum")
        torch.testing.assert_close(sums.loss, wanted, atol=1e-9, rtol=1e-12)
        assert sums.weight == len(targets[targets != UNTRAINED])
        gradients = [torch.autograd.grad(loss, [hidden, *head.parameters()]) for loss in (sums.loss, wanted)]
        for ours, theirs in zip(*gradients, strict=True):
            torch.testing.assert_close(ours, theirs, atol=1e-12, rtol=1e-12)
    assert len(counts) > 8
    assert len(met) <= 4
    assert max(met) <= 1024
