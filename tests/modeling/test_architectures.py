"""Architectures of transformers: loss, packing and answers beside the model's own forward pass."""

import pytest
import torch
import torch.nn.functional as F
from transformers import Gemma3Config

from qa_lm.batch import UNTRAINED, Batch
from qa_lm.errors import UserError
from qa_lm.inference.drafts import Draft
from qa_lm.inference.greedy import greedy_answers
from qa_lm.modeling import causal_lm
from qa_lm.modeling.causal_lm import (
    build_causal_lm,
    causal_lm_from_config,
    check_packing,
    context_of,
    head,
    hidden_states,
    logits,
    packs_exactly,
    plain_config,
    soft_cap,
)
from qa_lm.modeling.config_arguments import CONTEXTS, number
from qa_lm.modeling.custom_model import continues_from_cache
from qa_lm.modeling.loss import batch_loss
from qa_lm.modeling.module import CausalLMModule

MLP = {"intermediate_size": 64}
# A cap and scales that show in the results of so small a model.
PACKED = {
    "gpt2": {},
    "gpt_neox": MLP,
    "llama": MLP,
    "mistral": MLP | {"sliding_window": 4},
    "qwen2": MLP,
    "qwen3": MLP | {"head_dim": 16},
    "smollm3": MLP,
    "gemma2": MLP | {"head_dim": 16, "sliding_window": 4, "final_logit_softcapping": 2.0},
    "gemma3_text": MLP | {"head_dim": 16, "sliding_window": 4},
    "phi3": MLP,
    "olmo2": MLP,
    "granite": MLP | {"logits_scaling": 0.25},
    "cohere": MLP | {"logit_scale": 4.0},
    "cohere2": MLP | {"logit_scale": 4.0, "sliding_window": 4},
    "stablelm": MLP,
    "falcon": {"alibi": False},
    "minicpm3": MLP | {"dim_model_base": 64},
    "hyperclovax": MLP | {"logits_scaling": 4.0},
    "nanochat": MLP | {"final_logit_softcapping": 2.0},
}
UNPACKED = {"mamba": {}, "bloom": {}, "opt": {"ffn_dim": 64}}
ALL = PACKED | UNPACKED
VOCABULARY, EOS = 64, 0
PAIRS = [([5, 9, 11], [7, 8]), ([5, 9, 12, 13], [20]), ([3, 4], [30, 31, 32]), ([41, 9], [7, 9, 40])]
UNKNOWN = [([50, 51, 52], [53]), ([60, 3], [22, 23])]


def build(architecture, tied=None):
    torch.manual_seed(0)
    extra = {**ALL[architecture], **({} if tied is None else {"tie_word_embeddings": tied})}  # type: ignore[dict-item]
    return build_causal_lm(architecture, VOCABULARY, 32, 2, 2, 64, 0.0, EOS, extra)


def batch_of(rows):
    """A batch of pairs; each row is a list of pairs, one after the other."""
    count = sum(map(len, rows))
    width = max(sum(len(prompt + answer) for prompt, answer in row) for row in rows) + 1
    inputs, positions, pair = (torch.full((len(rows), width), fill) for fill in (0, 0, -1))
    targets, in_answer = torch.full_like(inputs, UNTRAINED), torch.zeros_like(inputs, dtype=torch.bool)
    number = 0
    for row, pairs in enumerate(rows):
        start = 0
        for prompt, answer in pairs:
            ids = torch.tensor([*prompt, *answer, EOS])
            place = slice(start, start + len(ids) - 1)
            inputs[row, place], targets[row, place] = ids[:-1], ids[1:]
            positions[row, place], pair[row, place] = torch.arange(len(ids) - 1), number
            in_answer[row, start + len(prompt) - 1 : place.stop] = True
            start, number = place.stop, number + 1
    return Batch(inputs, targets, positions, pair, in_answer, torch.arange(count), count, int((pair >= 0).sum()))


def rows_of(architecture, pairs):
    if architecture in UNPACKED:
        return batch_of([[pair] for pair in pairs])
    return batch_of([pairs[: len(pairs) // 2], pairs[len(pairs) // 2 :]])


def loss_of(model, batch):
    hidden = hidden_states(model, batch.inputs, batch.positions)
    return batch_loss(hidden, head(model), batch, True, soft_cap(model))


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("architecture", ALL)
def test_loss_gradients_and_logits_are_those_of_each_pair_alone(architecture, tied):
    model = build(architecture, tied)
    assert (head(model).weight is model.get_input_embeddings().weight) == tied
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))  # so that a cap and a scale matter
    alone, losses = [], []
    for prompt, answer in PAIRS:
        ids = torch.tensor([[*prompt, *answer, EOS]])
        alone.append(model(input_ids=ids[:, :-1], use_cache=False).logits[0])
        losses.append(F.cross_entropy(alone[-1], ids[0, 1:]))
    expected = torch.stack(losses).mean()
    batch = rows_of(architecture, PAIRS)
    sums = loss_of(model, batch)
    parameters = [each for each in model.parameters() if each.requires_grad]
    wanted, found = (
        torch.autograd.grad(loss, parameters, allow_unused=True) for loss in (expected, sums.loss / sums.weight)
    )
    torch.testing.assert_close(sums.loss / sums.weight, expected, atol=1e-5, rtol=1e-5)
    for ours, theirs in zip(found, wanted, strict=True):
        assert (ours is None) == (theirs is None)
        if ours is not None:
            torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    packed = logits(model, hidden_states(model, batch.inputs, batch.positions))[batch.pair >= 0]
    torch.testing.assert_close(packed, torch.cat(alone), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("architecture", ALL)
def test_answers_and_exact_matches_are_those_of_the_models_own_logits(architecture):
    model = build(architecture)
    assert continues_from_cache(model) == (architecture != "mamba")
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(60):
        sums = loss_of(model, rows_of(architecture, PAIRS))
        optimizer.zero_grad()
        (sums.loss / sums.weight).backward()
        optimizer.step()
    pairs = PAIRS + UNKNOWN
    with torch.no_grad():
        exact = loss_of(model.eval(), rows_of(architecture, pairs)).pair_exact.tolist()
    assert any(exact[: len(PAIRS)])
    assert not any(exact[len(PAIRS) :])
    answers = greedy_answers(model, [Draft(prompt, []) for prompt, _ in pairs], EOS, 8, check=False)
    verified = greedy_answers(model, [Draft(prompt, answer) for prompt, answer in pairs], EOS, 8)
    own = [_greedy(model, prompt, 8) for prompt, _ in pairs]
    assert [answer.ids for answer in answers] == own
    assert [answer.ids for answer in verified] == own
    found = [each.stopped and each.ids == answer for each, (_, answer) in zip(answers, pairs, strict=True)]
    assert found == exact


@torch.no_grad()
def _greedy(model, prompt, limit):
    ids = list(prompt)
    while len(ids) < len(prompt) + limit:
        token = int(model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1].argmax())
        if token == EOS:
            break
        ids.append(token)
    return ids[len(prompt) :]


@pytest.mark.parametrize("architecture", ALL)
def test_a_model_that_mixes_packed_pairs_is_refused_with_packing(architecture):
    model = build(architecture)
    if architecture in PACKED:
        check_packing(model, "model")
    else:
        with pytest.raises(UserError, match=r"^model: pairs that share a row .* set data.packing=false$"):
            check_packing(model, "model")
    assert model.training


@pytest.mark.parametrize("architecture", ["gpt2", "gemma2", "granite", "cohere"])
def test_weights_in_bfloat16_pass_the_checks(architecture):
    model = causal_lm_from_config(plain_config(build(architecture)) | {"dtype": "bfloat16"})
    assert hidden_states(model, torch.arange(4)[None], torch.arange(4)[None]).dtype == torch.bfloat16
    assert packs_exactly(model)


@pytest.mark.parametrize(
    ("architecture", "names"),
    [("gemma2", "SOFT_CAPS"), ("cohere", "MULTIPLIERS"), ("granite", "DIVISORS"), ("hyperclovax", "DIVISORS")],
)
def test_a_cap_or_scale_under_an_unknown_name_is_refused(monkeypatch, architecture, names):
    """Also with fresh weights, whose logits are too small to be changed by a cap."""
    module = causal_lm if names == "SOFT_CAPS" else "qa_lm.modeling.config_arguments"
    monkeypatch.setattr(module, names, ()) if module is causal_lm else monkeypatch.setattr(f"{module}.{names}", ())
    with pytest.raises(UserError, match=f"^model.architecture={architecture}: its logits are not a linear function"):
        build(architecture)


@pytest.mark.parametrize(
    ("architecture", "message"),
    [
        ("bert", "its logits are not a linear function of its hidden states"),
        ("bert-generation", "it lets a position see later ones"),
        ("dory", "its head is not a linear layer"),
        ("prophetnet", "cannot be run on text alone"),
    ],
)
def test_other_kinds_of_models_are_refused_in_one_line(architecture, message):
    with pytest.raises(UserError, match=rf"^model.architecture={architecture}: {message}[^\n]*$"):
        build_causal_lm(architecture, VOCABULARY, 32, 2, 2, 64, 0.0, EOS)


def test_a_loss_of_your_own_is_refused_for_capped_logits():
    with pytest.raises(UserError, match="loss: cannot be replaced for a model that caps its logits"):
        CausalLMModule(build("gemma2"), loss=lambda hidden, head, batch: None)  # type: ignore[arg-type, return-value]


@pytest.mark.parametrize("architecture", [*ALL, "mpt"])
def test_the_context_is_that_of_the_settings_also_where_the_config_names_none(monkeypatch, architecture):
    monkeypatch.setitem(ALL, "mpt", {})
    assert context_of(causal_lm_from_config(plain_config(build(architecture)))) == 64


def test_a_nested_config_is_read():
    assert number(Gemma3Config(text_config={"max_position_embeddings": 77}), CONTEXTS) == 77


def test_a_model_without_a_context_has_none_to_exceed():
    model = build("mamba")
    del model.config.max_position_embeddings
    assert context_of(model) > 10**6
