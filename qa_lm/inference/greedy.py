"""Greedy answers with a draft: what the answer should be costs one forward pass to check, and only the rest is decoded.

1. Prompts with their drafts stand packed in rows, and one forward pass tells the greedy token at every place of the
   draft. Up to the first difference the draft is the greedy answer; at the difference the greedy token is known too.
   (Speculative decoding, arXiv:2211.17192, with the true answer as the draft, which is right for a learnt pair.)
2. What is not finished then is decoded from there, many at once, with a cache of keys and values; a finished answer
   leaves the batch.

Every token is the argmax that transformers' `generate(do_sample=False)` takes, up to the rounding that another shape of
the batch brings.
"""

from collections.abc import Sequence

import torch
from transformers import DynamicCache, PreTrainedModel

from qa_lm.inference.drafts import Checked, Draft, checked_drafts
from qa_lm.inference.sampling import Continuation, room_for
from qa_lm.modeling.causal_lm import packs_exactly
from qa_lm.modeling.custom_model import continues_from_cache, is_of_transformers, last_logits
from qa_lm.modeling.prediction import best_token

BATCH = 64
"""Most answers that are decoded at once."""


def greedy_answers(
    model: PreTrainedModel,
    drafts: Sequence[Draft],
    eos_id: int,
    max_new_tokens: int,
    batch_size: int = BATCH,
    check: bool = True,
) -> list[Continuation]:
    """The greedy continuation of each prompt, in order.

    Args:
        model: a causal LM of transformers; put into eval mode.
        drafts: prompts, each of at least one token and shorter than the model's context, and drafts of their answers.
        eos_id: where an answer ends.
        max_new_tokens: longest continuation, EOS included; less where the context ends first.
        batch_size: most answers decoded at once.
        check: whether the drafts are used; without, all is decoded.
    """
    model.eval()
    own = not is_of_transformers(type(model))
    packed, cached = not own or packs_exactly(model), not own or continues_from_cache(model)
    limits = [min(max_new_tokens, room_for(model, draft.prompt)) for draft in drafts]
    begun = [Continuation([], False, [])] * len(drafts)
    if check:
        # The token after the draft is known too, so a draft is one shorter than the limit.
        short = [Draft(draft.prompt, draft.answer[: limit - 1]) for draft, limit in zip(drafts, limits, strict=True)]
        checked = checked_drafts(model, short, eos_id, packed)
        begun = [_accepted(draft, found, eos_id) for draft, found in zip(short, checked, strict=True)]
    left = [n for n, limit in enumerate(limits) if not begun[n].stopped and len(begun[n].ids) < limit]
    left.sort(key=lambda number: len(drafts[number].prompt) + len(begun[number].ids))
    for begin in range(0, len(left), batch_size):
        numbers = left[begin : begin + batch_size]
        prefixes = [drafts[number].prompt + begun[number].ids for number in numbers]
        rests = _decoded(
            model, prefixes, eos_id, [limits[number] - len(begun[number].ids) for number in numbers], cached
        )
        for number, rest in zip(numbers, rests, strict=True):
            begun[number] = begun[number].followed_by(rest)
    return begun


def _accepted(draft: Draft, checked: Checked, eos_id: int) -> Continuation:
    """The draft as far as it is the greedy answer, and the greedy token after it."""
    agreed = checked.agreed(draft)
    ids = checked.ids[: agreed + 1].tolist()
    log_probabilities = checked.log_probabilities[: agreed + 1].tolist()
    if eos_id in ids:
        end = ids.index(eos_id)
        return Continuation(ids[:end], True, log_probabilities[: end + 1], checked.eos_log_probability)
    return Continuation(ids, False, log_probabilities, checked.eos_log_probability)


@torch.inference_mode()
def _decoded(
    model: PreTrainedModel, prefixes: list[list[int]], eos_id: int, limits: list[int], cached: bool = True
) -> list[Continuation]:
    """Continuations of one batch, each to its EOS or its own limit; without a cache each token sees its whole prefix
    again."""
    width = max(map(len, prefixes))
    padded = [[eos_id] * (width - len(prefix)) + prefix for prefix in prefixes]
    inputs = torch.tensor(padded, device=model.device)  # (prefixes, time), padded on the left
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prefixes], device=model.device)
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    needs_mask = bool((mask == 0).any())
    cache = DynamicCache(config=model.config) if cached else None
    ids: list[list[int]] = [[] for _ in prefixes]
    log_probabilities: list[list[float]] = [[] for _ in prefixes]
    stopped = [False] * len(prefixes)
    running = list(range(len(prefixes)))
    while True:
        if cached:
            logits = model(
                input_ids=inputs,
                attention_mask=mask if needs_mask else None,
                position_ids=positions,
                cache=cache,
                use_cache=True,
                logits_to_keep=1,
            ).logits[:, -1]
        else:
            logits = last_logits(model, [prefixes[number] + ids[number] for number in running])
        best, best_log_probabilities, _ = best_token(logits, eos_id)
        kept = []  # rows of the batch that go on
        for row, (token, log_probability) in enumerate(
            zip(best.tolist(), best_log_probabilities.tolist(), strict=True)
        ):
            number = running[row]
            log_probabilities[number].append(log_probability)
            stopped[number] = token == eos_id
            if not stopped[number]:
                ids[number].append(token)
                if len(ids[number]) < limits[number]:
                    kept.append(row)
        if not kept:
            break
        if len(kept) < len(running):
            rows = torch.tensor(kept, device=model.device)
            if cache is not None:
                cache.batch_select_indices(rows)
            best, mask, positions = best[rows], mask[rows], positions[rows]
            running = [running[row] for row in kept]
        inputs, positions = best[:, None], positions[:, -1:] + 1
        mask = torch.cat([mask, torch.ones_like(mask[:, :1])], 1)
    return [Continuation(*each) for each in zip(ids, stopped, log_probabilities, strict=True)]
