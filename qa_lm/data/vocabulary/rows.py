"""The rows of a model that belong to a trimmed vocabulary."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qa_lm.data.vocabulary.trimming import KEY
from qa_lm.errors import UserError, reading

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel

PROOF = "trim.json"
"""Next to a trimmed tokenizer or model: what was proved of it, and the former id of each token."""
OLD_IDS = "old_ids"
"""The entry with the ids."""


def old_ids_in(folder: Path) -> list[int] | None:
    """The former id of each token of the model in a folder; None if its vocabulary was not trimmed.

    Raises:
        UserError: the file is damaged.
    """
    path = folder / PROOF
    if not path.is_file():
        return None
    with reading(path, "is not a valid list of ids"):
        ids = json.loads(path.read_text(encoding="utf-8"))[OLD_IDS]
        if not all(type(each) is int for each in ids) or not ids or ids != sorted({*ids}) or ids[0] < 0:
            raise ValueError(f"{OLD_IDS} must be ascending ids")
    found: list[int] = ids
    return found


def keep_rows(model: "PreTrainedModel", old_ids: Sequence[int]) -> None:
    """Keep the rows of the embedding and of the head that belong to these tokens, in place, and renumber the ids in the
    model's configuration. A head that is tied stays tied.

    Args:
        model: a causal language model; on the meta device only its shapes change.
        old_ids: the former id of each token.

    Raises:
        UserError: the model has other parts that depend on the vocabulary.
    """
    import torch

    embedding: Any = model.get_input_embeddings()
    head: Any = model.get_output_embeddings()
    before: int = embedding.weight.shape[0]
    if old_ids[-1] >= before:
        raise UserError(
            f"{KEY}: the tokenizer has ids up to {old_ids[-1]:,}, but the model has {before:,} embeddings", KEY
        )
    tables = [
        each for each in model.modules() if isinstance(each, torch.nn.Embedding) and each.num_embeddings == before
    ]
    if len(tables) != 1 or head.weight.shape[0] != before:
        raise UserError(
            f"{KEY}: this model has more matrices of {before:,} tokens than its embedding and its head", KEY
        )
    tied = head.weight is embedding.weight
    rows = torch.tensor(old_ids, device=embedding.weight.device)
    embedding.weight = _rows(embedding.weight, rows)
    embedding.num_embeddings = len(old_ids)
    head.weight = embedding.weight if tied else _rows(head.weight, rows)
    if head.bias is not None:
        head.bias = _rows(head.bias, rows)
    head.out_features = len(old_ids)
    new = {old: number for number, old in enumerate(old_ids)}
    if embedding.padding_idx is not None:
        embedding.padding_idx = new.get(embedding.padding_idx)
    parts: list[Any] = [model.config, model.config.get_text_config(), *model.modules()]
    for each in parts:
        if getattr(each, "vocab_size", None) == before:
            each.vocab_size = len(old_ids)
    _renumber(model.config, new)
    if model.can_generate():
        _renumber(model.generation_config, new)


def _rows(parameter: "nn.Parameter", rows: Any) -> "nn.Parameter":
    import torch

    return torch.nn.Parameter(parameter.detach()[rows].clone(), parameter.requires_grad)


def _renumber(config: Any, new: dict[int, int]) -> None:
    """Renumber all settings that end with `_token_id`; ids that are gone become None."""
    for name, value in list(vars(config).items()):
        if name.endswith("_token_id") and isinstance(value, list):
            setattr(config, name, [new[each] for each in value if each in new])
        elif name.endswith("_token_id") and type(value) is int:
            setattr(config, name, new.get(value))


def parameters_before(model: "PreTrainedModel", tokens: int) -> int:
    """How many parameters a model with a vocabulary of this many tokens would have; tied weights count once."""
    embedding: Any = model.get_input_embeddings()
    head: Any = model.get_output_embeddings()
    matrices = {id(each): each for each in (embedding.weight, head.weight, head.bias) if each is not None}
    missing = sum((tokens - each.shape[0]) * each[0].numel() for each in matrices.values())
    return sum(each.numel() for each in model.parameters()) + missing
