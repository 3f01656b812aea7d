"""Greedy decoding with drafts: one forward pass verifies the draft of an answer, and only the rest is decoded.

1. Prompts and drafts are packed into rows, and one forward pass gives the greedy token at every position of a draft. Up
   to the first difference the draft is the greedy answer, and the greedy token at the difference is known too. This is
   speculative decoding (arXiv:2211.17192) with the true answer as the draft, which is accepted for a learnt pair.
2. The remaining answers are decoded from there in batches with a key-value cache; a finished answer leaves the batch.

Every token is the argmax that transformers' `generate(do_sample=False)` takes, up to rounding differences between batch
shapes.
"""

from collections.abc import Callable, Container, Sequence

import torch
from transformers import DynamicCache, PreTrainedModel

from qa_lm.inference.drafts import Draft, VerifiedDraft, verify_drafts
from qa_lm.inference.sampling import Continuation, room_for
from qa_lm.modeling.causal_lm import packs_exactly
from qa_lm.modeling.custom_model import continues_from_cache, last_logits
from qa_lm.modeling.prediction import best_token

BATCH = 64
"""Maximum number of answers decoded at once."""
Watch = Callable[[Sequence[int], Sequence[int]], Container[int]]
"""Sees the tokens of a decoding step: the indices of the prompts and the new token of each. Returns the indices of the
prompts whose answers nobody wants any more; these end here."""


def greedy_answers(
    model: PreTrainedModel,
    drafts: Sequence[Draft],
    eos_id: int,
    max_new_tokens: int | Sequence[int],
    batch_size: int = BATCH,
    check: bool = True,
    watch: Watch | None = None,
) -> list[Continuation]:
    """Generate the greedy continuation of each prompt, in order.

    Args:
        model: a causal LM of transformers; it is put into eval mode.
        drafts: prompts, each of at least one token and shorter than the model's context, with drafts of their answers.
        eos_id: id of EOS.
        max_new_tokens: maximum length of a continuation, EOS included, or that of each; the model's context is a limit
            too.
        batch_size: maximum number of answers decoded at once.
        check: whether to verify the drafts; if not, all tokens are decoded.
        watch: sees each decoded token.
    """
    model.eval()
    packed, cached = packs_exactly(model), continues_from_cache(model)
    wanted = [max_new_tokens] * len(drafts) if isinstance(max_new_tokens, int) else max_new_tokens
    limits = [min(limit, room_for(model, draft.prompt)) for limit, draft in zip(wanted, drafts, strict=True)]
    answers = [Continuation([], False, [])] * len(drafts)
    if check:
        # The greedy token after the draft is known too, so a draft is one token shorter than the limit.
        cut = [Draft(draft.prompt, draft.answer[: limit - 1]) for draft, limit in zip(drafts, limits, strict=True)]
        verified = verify_drafts(model, cut, eos_id, packed)
        answers = [_accept(draft, each, eos_id) for draft, each in zip(cut, verified, strict=True)]
    unfinished = [n for n, limit in enumerate(limits) if not answers[n].stopped and len(answers[n].ids) < limit]
    unfinished.sort(key=lambda number: len(drafts[number].prompt) + len(answers[number].ids))
    for start in range(0, len(unfinished), batch_size):
        numbers = unfinished[start : start + batch_size]
        prefixes = [drafts[number].prompt + answers[number].ids for number in numbers]
        rest_limits = [limits[number] - len(answers[number].ids) for number in numbers]
        rests = _decode(model, prefixes, eos_id, rest_limits, cached, watch and _renumbered(watch, numbers))
        for number, rest in zip(numbers, rests, strict=True):
            answers[number] = answers[number].followed_by(rest)
    return answers


def _renumbered(watch: Watch, numbers: Sequence[int]) -> Watch:
    """For a batch whose prompts have these indices."""

    def of_batch(places: Sequence[int], tokens: Sequence[int]) -> Container[int]:
        unwanted = watch([numbers[place] for place in places], tokens)
        return {place for place in places if numbers[place] in unwanted}

    return of_batch


def _accept(draft: Draft, verified: VerifiedDraft, eos_id: int) -> Continuation:
    """The accepted prefix of the draft, and the greedy token after it."""
    accepted = verified.accepted(draft)
    ids = verified.ids[: accepted + 1].tolist()
    log_probabilities = verified.log_probabilities[: accepted + 1].tolist()
    if eos_id in ids:
        end = ids.index(eos_id)
        return Continuation(ids[:end], True, log_probabilities[: end + 1], verified.eos_log_probability)
    return Continuation(ids, False, log_probabilities, verified.eos_log_probability)


@torch.inference_mode()
def _decode(
    model: PreTrainedModel,
    prefixes: list[list[int]],
    eos_id: int,
    limits: list[int],
    cached: bool = True,
    watch: Watch | None = None,
) -> list[Continuation]:
    """Decode one batch, each continuation up to its EOS or its own limit.

    Without a cache, each step computes the whole prefix again.
    """
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
        kept = []  # rows of the batch that continue
        tokens = best.tolist()
        unwanted = watch(running, tokens) if watch else ()
        for row, (token, log_probability) in enumerate(zip(tokens, best_log_probabilities.tolist(), strict=True)):
            number = running[row]
            log_probabilities[number].append(log_probability)
            stopped[number] = token == eos_id
            if not stopped[number]:
                ids[number].append(token)
                if len(ids[number]) < limits[number] and number not in unwanted:
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
