"""AdamW and Muon: which parameters, which updates; the schedules of the learning rate."""

import copy
from itertools import pairwise
from typing import Any

import pytest
import torch

from qa_lm.modeling import optimizers
from qa_lm.modeling.causal_lm import embeddings
from qa_lm.modeling.optimizers import Muon, adamw, muon, orthogonalise
from qa_lm.modeling.schedules import Schedule
from tests.modeling.test_modeling import ARCHITECTURES, build

TORCH_POLYNOMIALS = ((3.4445, -4.7750, 2.0315),) * 5


def names(model, group):
    found = {id(parameter): name for name, parameter in model.named_parameters()}
    return {found[id(parameter)] for parameter in group["params"]}


def make_muon(model, **changes):
    arguments: dict[str, Any] = {"lr": 0.01, "betas": (0.9, 0.95), "eps": 1e-8, "weight_decay": 0.1, "momentum": 0.95}
    return muon(model, embeddings(model), dtype=torch.float32, **arguments | changes)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_only_matrices_decay(architecture):
    model = build(architecture, vocab_size=50)
    for optimizer in (adamw(model, 0.01, (0.9, 0.95), 1e-8, 0.1), make_muon(model)):
        decays = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
        assert len(decays) == len(list(model.parameters()))
        assert all(decays[id(p)] == (0.1 if p.ndim == 2 else 0) for p in model.parameters())


def test_the_tutorials_adamw_is_torchs_of_all_parameters():
    models = [build("gpt2", vocab_size=50) for _ in range(2)]
    for model in models:
        model.load_state_dict(models[0].state_dict())
    ours = adamw(models[0], 0.1, (0.9, 0.999), 1e-8, 0.5, decay_vectors=True)
    theirs = torch.optim.AdamW(models[1].parameters(), lr=0.1, weight_decay=0.5)
    for model, optimizer in zip(models, (ours, theirs), strict=True):
        torch.manual_seed(0)
        for _ in range(3):
            for parameter in model.parameters():
                parameter.grad = torch.randn_like(parameter)
            optimizer.step()
    for mine, other in zip(*(model.parameters() for model in models), strict=True):
        torch.testing.assert_close(mine, other, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_muon_takes_the_hidden_matrices_and_nothing_else(architecture):
    model = build(architecture, vocab_size=50)
    optimizer = make_muon(model)
    hidden = names(model, optimizer.param_groups[0])
    assert hidden
    for name, parameter in model.named_parameters():
        inside = parameter.ndim == 2 and not any(word in name for word in ("embed", "wte", "wpe", "lm_head"))
        assert (name in hidden) == inside, name


@pytest.mark.parametrize("at_once", [1 << 20, 256], ids=["all at once", "one square at once"])
def test_with_torchs_polynomials_muon_is_torchs_muon_and_the_rest_torchs_adamw(monkeypatch, at_once):
    monkeypatch.setattr(optimizers, "SAFETY", 1.0)
    monkeypatch.setattr(optimizers, "BATCH_BYTES", at_once)
    torch.manual_seed(0)
    shapes = [(8, 8), (8, 8), (8, 24), (24, 8), (24, 8)]
    hidden = [torch.nn.Parameter(torch.randn(shape)) for shape in shapes]
    table, bias = torch.nn.Parameter(torch.randn(50, 8)), torch.nn.Parameter(torch.randn(8))
    theirs = [torch.nn.Parameter(p.detach().clone()) for p in (*hidden, table, bias)]
    ours = Muon(hidden, [table], [bias], 0.01, (0.9, 0.95), 1e-8, 0.1, 0.95, torch.bfloat16, TORCH_POLYNOMIALS)
    reference = [
        torch.optim.Muon(theirs[:5], lr=0.01, weight_decay=0.1, momentum=0.95, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(theirs[5:6], lr=0.01, betas=(0.9, 0.95), weight_decay=0.1),
        torch.optim.AdamW(theirs[6:], lr=0.01, betas=(0.9, 0.95), weight_decay=0.0),
    ]
    before = [p.detach().clone() for p in theirs]
    for _ in range(4):
        for mine, other in zip((*hidden, table, bias), theirs, strict=True):
            mine.grad = torch.randn_like(mine)
            other.grad = mine.grad.clone()
        ours.step()
        for optimizer in reference:
            optimizer.step()
    for mine, other, old in zip((*hidden, table, bias), theirs, before, strict=True):
        assert (other - old).abs().max() > 0.01
        # bfloat16 products of one matrix and of several round apart
        torch.testing.assert_close(mine, other, atol=1e-3 if mine.ndim == 2 and len(mine) < 50 else 1e-6, rtol=0)


def test_muon_orthogonalises_equal_shapes_in_batches_of_limited_size(monkeypatch):
    shapes = [(8, 8)] * 5 + [(8, 24)] * 2
    hidden = [torch.nn.Parameter(torch.randn(shape)) for shape in shapes]
    for parameter in hidden:
        parameter.grad = torch.randn_like(parameter)
    batches = []

    def watched(matrices: torch.Tensor, *others: Any) -> torch.Tensor:
        batches.append(tuple(matrices.shape))
        return orthogonalise(matrices, *others)

    monkeypatch.setattr(optimizers, "orthogonalise", watched)
    monkeypatch.setattr(optimizers, "BATCH_BYTES", 2 * 8 * 8 * 4)
    Muon(hidden, [], [], 0.01, (0.9, 0.95), 1e-8, 0.1, 0.95, torch.float32).step()
    assert batches == [(2, 8, 8), (2, 8, 8), (1, 8, 8), (1, 8, 24), (1, 8, 24)]


@pytest.mark.parametrize("shape", [(3, 64, 64), (2, 64, 170), (2, 170, 64)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_orthogonalised_matrices_keep_their_directions_at_about_one_length(shape, dtype):
    torch.manual_seed(0)
    matrices = torch.randn(shape)
    found = orthogonalise(matrices, dtype).float()
    for before, after in zip(matrices, found, strict=True):
        left, values, right = torch.linalg.svd(before, full_matrices=False)
        core = left.T @ after @ right.T
        lengths = core.diagonal()[values > 0.01 * values.norm()]
        assert len(lengths) >= 58
        assert ((lengths > 0.7) & (lengths < 1.3)).all(), lengths
        assert (core - torch.diag(core.diagonal())).abs().max() < 0.1


def test_muon_goes_on_from_its_saved_state():
    model = build("llama", vocab_size=50)
    optimizer = make_muon(model)

    def step(model, optimizer):
        torch.manual_seed(1)
        for parameter in model.parameters():
            parameter.grad = torch.randn_like(parameter)
        optimizer.step()

    step(model, optimizer)
    again = copy.deepcopy(model)
    reloaded = make_muon(again, lr=0.5)
    reloaded.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    step(model, optimizer)
    step(again, reloaded)
    for mine, other in zip(model.parameters(), again.parameters(), strict=True):
        assert torch.equal(mine, other)


@pytest.mark.parametrize("kind", ["constant", "linear", "cosine", "wsd"])
def test_schedules(kind):
    schedule = Schedule(kind, steps=100, warmup=10, final=0.1, decay=0.25)
    factors = [schedule(step) for step in range(130)]
    assert factors[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert factors[10] == pytest.approx(1)
    end = 1.0 if kind == "constant" else 0.1
    assert factors[100:] == pytest.approx([end] * 30)
    falls = [later < earlier for earlier, later in pairwise(factors[10:101])]
    first = {"constant": None, "linear": 0, "cosine": 0, "wsd": 67}[kind]  # a quarter of the 90 steps after warm-up
    assert falls == [first is not None and step >= first for step in range(90)]
    middle = {"constant": 1, "linear": 0.55, "cosine": 0.55, "wsd": 1}[kind]
    assert schedule(55) == pytest.approx(middle)
    assert Schedule(kind, 1, 0, 0.1, 0.25)(0) == pytest.approx(1)
