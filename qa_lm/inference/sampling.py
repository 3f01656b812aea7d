"""Sample answers with transformers' `generate`; for greedy answers see `qa_lm.inference.greedy`."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import GenerationConfig, PreTrainedModel

from qa_lm.errors import UserError
from qa_lm.modeling.causal_lm import context_of
from qa_lm.modeling.custom_model import continues_from_cache


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen; the default is greedy decoding."""

    temperature: float = 0.0
    """0 takes the most likely token; 1 samples from the model's distribution; a higher value flattens it."""
    top_k: int = 0
    """Sample from the k most likely tokens only; 0 for all."""
    top_p: float = 1.0
    """Sample from the smallest set of tokens whose probabilities sum to p; 1 for all."""
    seed: int = 0
    """Random seed for sampling."""


GREEDY = Sampling()


@dataclass(frozen=True)
class Continuation:
    """The tokens that the model generated after a prompt."""

    ids: list[int]
    """Generated ids, without EOS."""
    stopped: bool
    """Whether the continuation ended with EOS; if not, it was cut at the length limit."""
    log_probabilities: list[float] = field(default_factory=list)
    """Log-probability of each token (EOS included), in nats."""
    eos_log_probability: float = math.nan
    """Log-probability of EOS after the draft, in nats; nan without a draft."""

    @property
    def mean_log_probability(self) -> float:
        """Mean log-probability of the tokens (EOS included), in nats."""
        return sum(self.log_probabilities) / max(1, len(self.log_probabilities))

    def followed_by(self, rest: "Continuation") -> "Continuation":
        """Append the rest to this continuation, which has not stopped yet."""
        log_probabilities = self.log_probabilities + rest.log_probabilities
        return Continuation(self.ids + rest.ids, rest.stopped, log_probabilities, self.eos_log_probability)


def room_for(model: PreTrainedModel, prompt: list[int]) -> int:
    """Number of tokens that fit into the model's context after the prompt."""
    return context_of(model) - len(prompt)


def sample_answers(
    model: PreTrainedModel,
    prompts: list[list[int]],
    eos_id: int,
    max_new_tokens: int,
    sampling: Sampling,
    batch_size: int = 32,
) -> list[Continuation]:
    """Sample a continuation for each prompt, in order.

    Prompts of equal length share a batch, so no row is padded and each prompt sees what it would see alone.

    Args:
        model: a causal LM of transformers; it is put into eval mode.
        prompts: ids, each of at least one token and shorter than the model's context.
        eos_id: id of EOS.
        max_new_tokens: maximum length of a continuation, EOS included; the model's context is a limit too.
        sampling: how tokens are sampled; its temperature is above 0.
        batch_size: maximum number of prompts at once.

    Raises:
        UserError: a custom model class has no method `generate`.
    """
    model.eval()
    # The type stub does not know that every causal LM can be called like this.
    generate: Any = getattr(model, "generate", None)
    if generate is None:
        name = type(model).__name__
        raise UserError(f"{name} cannot sample answers: let the class inherit from transformers.GenerationMixin too")
    cached = continues_from_cache(model)
    torch.manual_seed(sampling.seed)
    answers: dict[int, Continuation] = {}
    for indices in _batches_by_length(prompts, batch_size):
        inputs = torch.tensor([prompts[index] for index in indices], device=model.device)  # (prompts, time)
        config = GenerationConfig(
            max_new_tokens=min(max_new_tokens, room_for(model, prompts[indices[0]])),
            eos_token_id=eos_id,
            pad_token_id=eos_id,
            do_sample=True,
            use_cache=cached,
            temperature=sampling.temperature,
            top_k=sampling.top_k,
            top_p=sampling.top_p,
            return_dict_in_generate=True,
            output_logits=True,
        )
        with torch.inference_mode():
            output = generate(inputs, attention_mask=torch.ones_like(inputs), generation_config=config)
        logits = torch.stack(output.logits, 1).float()  # (prompts, new tokens, vocabulary)
        new = output.sequences[:, inputs.shape[1] :]
        log_probabilities = logits.log_softmax(-1).gather(2, new[:, :, None])[:, :, 0].tolist()
        for index, ids, of_ids in zip(indices, new.tolist(), log_probabilities, strict=True):
            end = ids.index(eos_id) if eos_id in ids else len(ids)
            answers[index] = Continuation(ids[:end], eos_id in ids, of_ids[: end + 1])
    return [answers[index] for index in range(len(prompts))]


def _batches_by_length(prompts: list[list[int]], batch_size: int) -> Iterator[list[int]]:
    by_length: dict[int, list[int]] = {}
    for index, prompt in enumerate(prompts):
        by_length.setdefault(len(prompt), []).append(index)
    for indices in by_length.values():
        for start in range(0, len(indices), batch_size):
            yield indices[start : start + batch_size]
