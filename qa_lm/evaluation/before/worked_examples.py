"""Worked examples before a prompt, which show a model the form of an answer, not the answer.

- Examples are trained pairs in the prompt format of the run. They are drawn by the seed: two sets, of different
  questions and, as far as possible, different answers.
- A pair is asked after the first set that does not contain its question, its group or its answer. If both contain its
  answer, as with answers that many pairs share, only question and group count.
- With a plain prompt, a blank line separates the examples, as a base model expects. They show an answer that ends with
  its line, so an answer has ended where the model's next token is EOS or begins a new line.
- With a chat template, the examples are earlier turns, and an answer ends with EOS. What stands only at the beginning
  of a text (BOS, a system turn) is not repeated.
"""

from dataclasses import dataclass

import numpy as np

from qa_lm.data.encoding import Example, PromptTemplate, encode_pairs
from qa_lm.data.prepare import PreparedData
from qa_lm.data.tokenizer import TextTokenizer

EXAMPLES = 4
"""Worked examples before a prompt, as in arXiv:2405.05904."""
SEPARATOR = "\n\n"
CANDIDATES = 10_000
"""Maximum number of trained pairs among which examples are looked for."""
SHARE_OF_CONTEXT = 1 / 2
"""Maximum share of the model's context that examples may take."""
NOT_ASKED = -1


@dataclass(frozen=True)
class WorkedExamples:
    """A set of worked examples."""

    pairs: np.ndarray
    """Indices in the table."""
    ids: list[int]
    """What precedes a prompt."""


def draw_examples(prepared: PreparedData, context: int, seed: int) -> list[WorkedExamples]:
    """Draw up to two sets of examples; one or none where too few pairs are trained."""
    order = np.random.default_rng([seed, EXAMPLES]).permutation(prepared.split.train)[:CANDIDATES]
    longest = SHARE_OF_CONTEXT * context / EXAMPLES - len(SEPARATOR)
    candidates = order[prepared.examples.lengths(order) < longest]
    chosen = _distinct(prepared, candidates.tolist(), 2 * EXAMPLES)
    half = (len(chosen) + 1) // 2
    sets = [np.array(each, np.int64) for each in (chosen[:half], chosen[half:]) if each]
    return [WorkedExamples(each, _encoded(prepared, each)) for each in sets]


def _distinct(prepared: PreparedData, candidates: list[int], count: int) -> list[int]:
    """The first candidates of different questions and groups: those of different answers, then others."""
    keys = {name: prepared.table.numbers(f"{name}_key") for name in ("normalised", "group", "answer")}
    chosen: list[int] = []
    for names in (("normalised", "group", "answer"), ("normalised", "group")):
        seen = {(name, int(keys[name][place])) for name in names for place in chosen}
        for place in candidates:
            own = {(name, int(keys[name][place])) for name in names} - {("group", 0)}
            if len(chosen) < count and not own & seen:
                chosen.append(place)
                seen |= own
    return chosen


def _encoded(prepared: PreparedData, places: np.ndarray) -> list[int]:
    tokenizer, template = prepared.tokenizer, prepared.template
    first, *others = encode_pairs(prepared.table.pairs(places), tokenizer, template)
    examples = [first, *(later(each, tokenizer, template) for each in others)]
    if is_chat(template):
        return [token for example in examples for token in example.ids]
    separator = _separator(tokenizer)
    return [token for example in examples for token in (*example.ids[:-1], *separator)]


def _separator(tokenizer: TextTokenizer) -> list[int]:
    """The blank line as it is encoded before a word, which may have other tokens than a blank line alone."""
    alone, word, both = tokenizer.encode([SEPARATOR, "What", f"{SEPARATOR}What"])
    return both[: -len(word)] if both[-len(word) :] == word else alone


def later(example: Example, tokenizer: TextTokenizer, template: PromptTemplate) -> Example:
    """A pair as it stands after another one.

    With a chat template, the first prompt may begin with a system turn, which ends with EOS; the user's turn is what
    follows it. In a plain prompt only BOS can stand before the text.
    """
    before = template.before
    if tuple(example.ids[: len(before)]) != before:  # cut to the model's context
        return example
    repeated = before if is_chat(template) else ()
    if tokenizer.eos_id in repeated:
        repeated = repeated[len(repeated) - repeated[::-1].index(tokenizer.eos_id) :]
    removed = len(before) - len(repeated)
    return Example(example.ids[removed:], example.prompt_tokens - removed)


def set_of_each(prepared: PreparedData, sets: list[WorkedExamples], places: np.ndarray) -> np.ndarray:
    """Number of the set after which each pair is asked, (pairs,); `NOT_ASKED` if all contain its question or group."""
    if not sets:
        return np.full(len(places), NOT_ASKED)
    keys = {name: prepared.table.numbers(f"{name}_key") for name in ("normalised", "group", "answer")}

    def shared(name: str, each: WorkedExamples) -> np.ndarray:
        own = keys[name][places]
        return np.isin(own, keys[name][each.pairs]) & (own != 0)

    gives_away = np.stack([shared("normalised", each) | shared("group", each) for each in sets])
    unwanted = 2 * gives_away + np.stack([shared("answer", each) for each in sets])
    return np.where(unwanted.min(0) < 2, unwanted.argmin(0), NOT_ASKED)


def is_chat(template: PromptTemplate) -> bool:
    """Whether prompt and answer are turns of a chat template."""
    return template.chat is not None


class AnswerEnd:
    """Which tokens end an answer after worked examples."""

    def __init__(self, tokenizer: TextTokenizer, template: PromptTemplate) -> None:
        self.tokenizer, self.lines = tokenizer, not is_chat(template)
        self._known = {tokenizer.eos_id: True}

    def __contains__(self, token: int) -> bool:
        if token not in self._known:
            text = self.tokenizer.decode([token]).lstrip(" ")
            self._known[token] = self.lines and text.startswith(("\n", "\r"))
        return self._known[token]
