"""Prompts to answers, by transformers' `generate`: greedy by default, batched, with a KV cache."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from transformers import GenerationConfig, PreTrainedModel


@dataclass(frozen=True)
class Sampling:
    """How the next token is drawn; the default is greedy."""

    temperature: float = 0.0
    """0 takes the most likely token; 1 draws from the model's distribution; above flattens it."""
    top_k: int = 0
    """Draw from the k most likely tokens only; 0 for all."""
    top_p: float = 1.0
    """Draw from the fewest tokens whose probabilities sum to p; 1 for all."""
    seed: int = 0
    """Seed of the draws."""


GREEDY = Sampling()


@dataclass(frozen=True)
class Continuation:
    """What the model wrote after a prompt."""

    ids: list[int]
    """The ids, without the EOS."""
    stopped: bool
    """Whether it ended with EOS; False means it was cut at the length limit."""


def generate(
    model: PreTrainedModel,
    prompts: list[list[int]],
    eos_id: int,
    max_new_tokens: int,
    batch_size: int = 32,
    sampling: Sampling = GREEDY,
) -> list[Continuation]:
    """A continuation for each prompt, in order.

    Prompts of one length are answered together, so that no row is padded and each sees what it would see alone.

    Args:
        model: a causal LM of transformers; put into eval mode.
        prompts: ids, each at least one and fewer than the model's context.
        eos_id: where an answer ends.
        max_new_tokens: longest continuation, EOS included; less where the context ends first.
        batch_size: most prompts at once.
        sampling: how tokens are drawn.
    """
    model.eval()
    continue_from: Any = model.generate  # its stub does not know that every causal LM can
    if sampling.temperature > 0:
        torch.manual_seed(sampling.seed)
    answers: dict[int, Continuation] = {}
    for indices in _groups_of_one_length(prompts, batch_size):
        inputs = torch.tensor([prompts[index] for index in indices], device=model.device)  # (prompts, time)
        room = model.config.max_position_embeddings - inputs.shape[1]
        assert room >= 1, "a prompt fills the context"
        config = GenerationConfig(
            max_new_tokens=min(max_new_tokens, room), eos_token_id=eos_id, pad_token_id=eos_id, **_arguments(sampling)
        )
        with torch.inference_mode():
            output = continue_from(inputs, attention_mask=torch.ones_like(inputs), generation_config=config)
        for index, ids in zip(indices, output[:, inputs.shape[1] :].tolist(), strict=True):
            stopped = eos_id in ids
            answers[index] = Continuation(ids[: ids.index(eos_id)] if stopped else ids, stopped)
    return [answers[index] for index in range(len(prompts))]


def _groups_of_one_length(prompts: list[list[int]], batch_size: int) -> Iterator[list[int]]:
    by_length: dict[int, list[int]] = {}
    for index, prompt in enumerate(prompts):
        by_length.setdefault(len(prompt), []).append(index)
    for indices in by_length.values():
        for start in range(0, len(indices), batch_size):
            yield indices[start : start + batch_size]


def _arguments(sampling: Sampling) -> dict[str, Any]:
    if sampling.temperature == 0:
        return {"do_sample": False}
    return {"do_sample": True, "temperature": sampling.temperature, "top_k": sampling.top_k, "top_p": sampling.top_p}
