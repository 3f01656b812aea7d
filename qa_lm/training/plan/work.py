"""The work of one device in a step: parameters, bytes and operations, counted on a model without memory."""

import warnings
from dataclasses import dataclass

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import PreTrainedModel

from qa_lm.modeling.causal_lm import blocks, embeddings, head, hidden_states, parameter_count
from qa_lm.modeling.hyperparameters import OptimizerFactory
from qa_lm.modeling.loss import BLOCK_LOGITS, CHUNK_BYTES, GRADIENT_ROWS
from qa_lm.modeling.optimizers import OptimizerSettings, trained_parameters

BYTES = {"32-true": 4, "bf16-mixed": 4, "bf16-true": 2, "64-true": 8}
"""Bytes of a weight, a gradient and a value of the optimizer, by precision. Mixed precision keeps them in float32."""


@dataclass(frozen=True)
class Work:
    """What a step needs on one device. Sizes are in bytes, without dividing them between devices."""

    parameters: int
    trained: int
    """Parameters that are not frozen."""
    multiplied: int
    """Parameters that a token is multiplied with: all but embeddings that are only looked up."""
    multiplied_trained: int
    largest_block: int
    """Parameters of the largest block."""
    outside: int
    """Parameters outside of the blocks: embeddings and head."""
    layers: int
    width: int
    weight_bytes: int
    """Bytes of a weight, a gradient and a value of the optimizer."""
    state: int
    """The optimizer's state."""
    rows: int
    """Rows of a batch."""
    row_tokens: float
    """Positions of a row, padding included."""
    activations: int
    """Tensors that the body keeps for the backward pass of a batch."""
    casts: int
    """Weights that mixed precision casts and keeps for the backward pass, whatever the batch is."""
    head: int
    """The logits of a chunk and what else the head needs at once."""
    micro_batches: int = 1
    """Batches of an optimizer step."""
    recomputed: bool = False
    """Whether the backward pass computes activations again."""

    @property
    def weights(self) -> int:
        """All weights, frozen ones included."""
        return self.weight_bytes * self.parameters

    @property
    def gradients(self) -> int:
        """Gradients of the trained parameters."""
        return self.weight_bytes * self.trained

    def flops(self, rows: int) -> float:
        """Floating-point operations of one batch, forward and backward.

        A multiplied parameter costs 2 forward, 2 for the gradient of the input and, unless it is frozen, 2 for its
        own: 6 or 4 per token. Attention costs 12 x layers x width x context per token. Checkpointed activations cost a
        second forward pass.
        """
        tokens = rows * self.row_tokens
        again = 4 / 3 if self.recomputed else 1.0
        frozen = self.multiplied - self.multiplied_trained
        products = 6 * self.multiplied_trained + 4 * frozen + (2 * self.multiplied if self.recomputed else 0)
        return tokens * (products + 12 * again * self.layers * self.width * self.row_tokens)


def work_of(
    model: PreTrainedModel,
    optimizer: OptimizerFactory,
    precision: str,
    rows: int,
    longest: int,
    row_tokens: float,
    on_cpu: bool = False,
    micro_batches: int = 1,
) -> Work:
    """Count the work of a step.

    Args:
        model: the model, on the meta device. It cannot be used afterwards.
        optimizer: builds the optimizer from the model.
        precision: name of the precision in `lightning.Trainer`.
        rows: rows of a batch.
        longest: positions of the longest row, which decides the memory.
        row_tokens: mean positions of a row, which decides the time.
        on_cpu: whether the device is a CPU.
        micro_batches: batches of an optimizer step.
    """
    size = BYTES.get(precision, 4)
    looked_up = {id(p) for each in embeddings(model) if isinstance(each, nn.Embedding) for p in each.parameters()}
    looked_up -= {id(parameter) for parameter in head(model).parameters()}
    multiplied = [parameter for parameter in model.parameters() if id(parameter) not in looked_up]
    sizes = [parameter_count(block) for block in blocks(model)] or [0]
    counted = {
        "parameters": parameter_count(model),
        "trained": parameter_count(model, trained=True),
        "multiplied": sum(parameter.numel() for parameter in multiplied),
        "multiplied_trained": sum(parameter.numel() for parameter in multiplied if parameter.requires_grad),
        "largest_block": max(sizes),
        "outside": parameter_count(model) - sum(sizes),
        "layers": len(sizes),
        "width": head(model).in_features,
        "weight_bytes": size,
        "state": size * state_values(model, optimizer),
        "head": head_bytes(model, precision, rows * longest, on_cpu),
    }
    recomputed = _recomputes(model)
    activations, casts = activation_bytes(model, precision, rows, longest)  # last: it unties the model's weights
    return Work(
        **counted,
        rows=rows,
        row_tokens=row_tokens,
        activations=activations,
        casts=casts,
        micro_batches=micro_batches,
        recomputed=recomputed,
    )


def state_values(model: PreTrainedModel, optimizer: OptimizerFactory) -> int:
    """Number of values that the optimizer keeps: two per trained parameter, one for the matrices of Muon."""
    trained = trained_parameters(model)
    values = 2 * sum(parameter.numel() for parameter in trained)
    if isinstance(optimizer, OptimizerSettings) and optimizer.kind == "muon":
        indexed = {id(parameter) for module in embeddings(model) for parameter in module.parameters()}
        values -= sum(each.numel() for each in trained if each.ndim == 2 and id(each) not in indexed)
    return values


def head_bytes(model: PreTrainedModel, precision: str, positions: int, on_cpu: bool) -> int:
    """Bytes of the head while it computes a chunk of logits (`qa_lm.modeling.loss`).

    Args:
        model: the model.
        precision: name of the precision in `lightning.Trainer`.
        positions: positions of a batch.
        on_cpu: whether it runs on a CPU, which computes the softmax in smaller blocks.
    """
    vocabulary, width = head(model).out_features, head(model).in_features
    size = 2 if precision.startswith("bf16") else BYTES.get(precision, 4)
    chunk = min(positions, max(1, CHUNK_BYTES // (vocabulary * size)))
    block = min(chunk, max(1, BLOCK_LOGITS // vocabulary)) if on_cpu else chunk
    products = min(GRADIENT_ROWS, vocabulary) if on_cpu else vocabulary
    weight = size * vocabulary * width if precision == "bf16-mixed" else 0  # a copy in the dtype of the products
    # A second gradient of the weight exists while it is added to that of a tied embedding or of former batches.
    gradient = BYTES.get(precision, 4) * vocabulary * width if head(model).weight.requires_grad else 0
    return vocabulary * (size * chunk + 2 * 4 * block) + size * width * (products + 2 * positions) + weight + gradient


def activation_bytes(model: PreTrainedModel, precision: str, rows: int, tokens: int) -> tuple[int, int]:
    """Bytes of the tensors that the body keeps for its backward pass, apart from parameters: those that grow with the
    rows, and those that do not, which are the weights that mixed precision casts.

    A forward pass on tensors that have shapes but no memory counts them, so that it holds for any architecture,
    attention, adapter and precision.

    Args:
        model: the model, on the meta device. It cannot be used afterwards.
        precision: name of the precision in `lightning.Trainer`.
        rows: rows of a batch.
        tokens: positions of a row.
    """
    with FakeTensorMode():
        model._apply(lambda tensor: torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu"))
        model.train()
        kept, casts = _saved_bytes(model, precision, rows, tokens)
        if not _recomputes(model):
            return kept, casts
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # transformers is about to rename it
            model.gradient_checkpointing_disable()
        more, more_casts = _saved_bytes(model, precision, rows, tokens)
        layers = max(1, len(blocks(model)))  # the backward pass computes one block at a time again
        return kept + more // layers, casts + more_casts // layers


def _recomputes(model: PreTrainedModel) -> bool:
    return any(getattr(module, "gradient_checkpointing", False) for module in model.modules())


def _saved_bytes(model: PreTrainedModel, precision: str, rows: int, tokens: int) -> tuple[int, int]:
    once = _saved_by(model, precision, rows, tokens)
    if precision != "bf16-mixed":
        return once, 0
    casts = 2 * once - _saved_by(model, precision, 2 * rows, tokens)
    return once - casts, casts


def _saved_by(model: PreTrainedModel, precision: str, rows: int, tokens: int) -> int:
    saved: dict[int, torch.UntypedStorage] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        saved[storage._cdata] = storage  # keeps it alive, so that the key stays its own
        return tensor

    inputs = torch.zeros(rows, tokens, dtype=torch.long)
    positions = torch.arange(tokens).expand(rows, tokens)
    mixed = torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16-mixed")
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor), mixed:
        hidden_states(model, inputs, positions)
    parameters = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
    return sum(storage.nbytes() for key, storage in saved.items() if key not in parameters)
