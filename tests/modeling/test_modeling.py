"""The model sees only the past, the loss is the hand-written one, exact match is real generation."""

import pytest
import torch
import torch.nn.functional as F

from qa_lm.data.batches.batching import Row
from qa_lm.data.batches.collate import Collate
from qa_lm.data.encoding import encode_pairs
from qa_lm.errors import UserError
from qa_lm.evaluation.evaluate import EvalSet, evaluate_pairs, exact_match
from qa_lm.modeling import loss as loss_module
from qa_lm.modeling.causal_lm import build_causal_lm, head, hidden_states
from qa_lm.modeling.loss import batch_loss
from tests.conftest import builtin, encoded

ARCHITECTURES = {"gpt2": {}, "llama": {"intermediate_size": 64}, "qwen3": {"intermediate_size": 64, "head_dim": 16}}


def build(architecture="gpt2", vocab_size=50257, **changes):
    torch.manual_seed(0)
    size = {"hidden_size": 32, "layers": 2, "heads": 2, "context": 64, "dropout": 0.0, "eos_id": 0}
    return build_causal_lm(architecture, vocab_size, **(size | {"extra": ARCHITECTURES.get(architecture)} | changes))


@pytest.fixture(scope="module")
def batch(gpt2, template, tmp_path_factory):
    examples = encoded(builtin("tutorial"), gpt2, template, tmp_path_factory.mktemp("store"))
    return Collate(examples, train_on_question=True)([Row([row]) for row in range(10)])


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_no_gradient_from_a_later_position_and_some_from_every_earlier_one(architecture):
    model = build(architecture, vocab_size=50).double()
    embedded = torch.randn(1, 6, 32, dtype=torch.float64, requires_grad=True)
    output = model.base_model(inputs_embeds=embedded, position_ids=torch.arange(6)[None], use_cache=False)
    for position in range(6):
        (gradient,) = torch.autograd.grad(
            output.last_hidden_state[0, position].pow(3).sum(), embedded, retain_graph=True
        )
        touched = gradient[0].abs().sum(-1)
        assert (touched[: position + 1] > 0).all()
        assert (touched[position + 1 :] == 0).all()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("mean_per_pair", [True, False])
def test_the_loss_and_its_gradients_equal_the_hand_written_ones(batch, architecture, mean_per_pair):
    model = build(architecture)
    logits = model(batch.inputs).logits
    if mean_per_pair:
        rows = [F.cross_entropy(row, targets) for row, targets in zip(logits, batch.targets, strict=True)]
        expected = torch.stack(rows).mean()
    else:
        expected = F.cross_entropy(logits.flatten(0, 1), batch.targets.flatten())
    expected_gradients = torch.autograd.grad(expected, list(model.parameters()))
    sums = batch_loss(hidden_states(model, batch.inputs, batch.positions), head(model), batch, mean_per_pair)
    gradients = torch.autograd.grad(sums.loss / sums.weight, list(model.parameters()))
    torch.testing.assert_close(sums.loss / sums.weight, expected, atol=1e-5, rtol=0)
    for ours, theirs in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


def test_what_a_config_derives_is_derived_from_our_sizes():
    """transformers' Llama config would keep heads of 128, whatever the width, if sizes were set one after the other."""
    model = build("llama", vocab_size=50)
    assert model.config.head_dim == 16
    assert {p.shape for name, p in model.named_parameters() if "q_proj" in name} == {(32, 32)}


def test_chunks_change_nothing(batch, monkeypatch):
    model = build()

    def loss_and_gradients():
        sums = batch_loss(hidden_states(model, batch.inputs, batch.positions), head(model), batch, True)
        return sums, torch.autograd.grad(sums.loss, list(model.parameters()))

    whole, whole_gradients = loss_and_gradients()
    monkeypatch.setattr(loss_module, "CHUNK_BYTES", 7 * 50257 * 4)
    monkeypatch.setattr(loss_module, "BLOCK_LOGITS", 3 * 50257)
    monkeypatch.setattr(loss_module, "GRADIENT_ROWS", 1000)
    chunked, chunked_gradients = loss_and_gradients()
    torch.testing.assert_close(chunked.loss, whole.loss)
    assert chunked.exact == whole.exact
    for ours, theirs in zip(chunked_gradients, whole_gradients, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-4)


def test_exact_match_by_teacher_forcing_equals_generation(gpt2, template, batch):
    """On a model that knows some of the pairs and not others."""
    pairs = builtin("tutorial")
    examples = encode_pairs(pairs, gpt2, template)
    model = build()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    seen = set()
    for _ in range(60):
        sums = batch_loss(hidden_states(model, batch.inputs, batch.positions), head(model), batch, True)
        known = int(sums.exact)
        if known not in seen:
            seen.add(known)
            answers = evaluate_pairs(model, gpt2, template, EvalSet("train", pairs, examples), None, 4, 1)
            assert exact_match(answers) == known / 10
        optimizer.zero_grad()
        (sums.loss / sums.weight).backward()
        optimizer.step()
    assert len(seen) >= 3, seen


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architecture": "gpt22"}, "model.architecture=gpt22: .* did you mean gpt2"),
        ({"extra": {"n_iner": 64}}, "model.extra.n_iner: gpt2 has no such argument; did you mean n_inner"),
    ],
)
def test_a_model_that_cannot_be_built_is_the_users_error(changes, message):
    with pytest.raises(UserError, match=message):
        build(**changes)
