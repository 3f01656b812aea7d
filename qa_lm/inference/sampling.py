"""Prompts to drawn answers, by transformers' `generate`; greedy ones: `qa_lm.inference.greedy`."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import GenerationConfig, PreTrainedModel

from qa_lm.errors import UserError
from qa_lm.modeling.custom_model import continues_from_cache, is_of_transformers


@dataclass(frozen=True)
class Sampling:
    """How the next token is drawn; the default is greedy: not at all."""

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
    log_probabilities: list[float] = field(default_factory=list)
    """Of each token, its EOS included, in nats."""
    eos_log_probability: float = math.nan
    """Of EOS behind a draft, in nats; nan without one."""

    @property
    def mean_log_probability(self) -> float:
        """Mean over the tokens, EOS included."""
        return sum(self.log_probabilities) / max(1, len(self.log_probabilities))

    def followed_by(self, rest: "Continuation") -> "Continuation":
        """This one, which had not stopped, with its rest."""
        log_probabilities = self.log_probabilities + rest.log_probabilities
        return Continuation(self.ids + rest.ids, rest.stopped, log_probabilities, self.eos_log_probability)


def room_for(model: PreTrainedModel, prompt: list[int]) -> int:
    """Tokens that still fit behind the prompt into what the model sees at once."""
    return model.config.max_position_embeddings - len(prompt)


def drawn_answers(
    model: PreTrainedModel,
    prompts: list[list[int]],
    eos_id: int,
    max_new_tokens: int,
    sampling: Sampling,
    batch_size: int = 32,
) -> list[Continuation]:
    """A drawn continuation for each prompt, in order.

    Prompts of one length are answered together, so that no row is padded and each sees what it would see alone.

    Args:
        model: a causal LM of transformers; put into eval mode.
        prompts: ids, each at least one and fewer than the model's context.
        eos_id: where an answer ends.
        max_new_tokens: longest continuation, EOS included; less where the context ends first.
        sampling: how tokens are drawn; its temperature is above 0.
        batch_size: most prompts at once.

    Raises:
        UserError: a model class of the user's has no `generate`.
    """
    model.eval()
    continue_from: Any = getattr(model, "generate", None)
    if continue_from is None:
        name = type(model).__name__
        raise UserError(
            f"answers of {name} cannot be drawn: let the class inherit from transformers.GenerationMixin too"
        )
    cached = is_of_transformers(type(model)) or continues_from_cache(model)
    torch.manual_seed(sampling.seed)
    answers: dict[int, Continuation] = {}
    for indices in _groups_of_one_length(prompts, batch_size):
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
            output = continue_from(inputs, attention_mask=torch.ones_like(inputs), generation_config=config)
        logits = torch.stack(output.logits, 1).float()  # (prompts, new tokens, vocabulary)
        new = output.sequences[:, inputs.shape[1] :]
        log_probabilities = logits.log_softmax(-1).gather(2, new[:, :, None])[:, :, 0].tolist()
        for index, ids, of_ids in zip(indices, new.tolist(), log_probabilities, strict=True):
            end = ids.index(eos_id) if eos_id in ids else len(ids)
            answers[index] = Continuation(ids[:end], eos_id in ids, of_ids[: end + 1])
    return [answers[index] for index in range(len(prompts))]


def _groups_of_one_length(prompts: list[list[int]], batch_size: int) -> Iterator[list[int]]:
    by_length: dict[int, list[int]] = {}
    for index, prompt in enumerate(prompts):
        by_length.setdefault(len(prompt), []).append(index)
    for indices in by_length.values():
        for start in range(0, len(indices), batch_size):
            yield indices[start : start + batch_size]
