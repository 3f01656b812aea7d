"""Decode the most likely one of the known answers: an exact best-first search in a trie of their tokens.

The log-probability of a prefix is an upper bound for every answer that begins with it, so the search evaluates the most
likely prefix first and ends when the most likely one is a whole answer. A certain model needs two or three forward
passes, in which all questions take part; an uncertain one evaluates more prefixes. Prefixes are evaluated whole, packed
into rows, without a cache.
"""

import heapq
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

from transformers import PreTrainedModel

from qa_lm.inference.sampling import Continuation
from qa_lm.inference.scoring import Continued, score_continuations
from qa_lm.modeling.causal_lm import packs_exactly
from qa_lm.modeling.custom_model import is_from_transformers

WIDTH = 1
"""Prefixes of a question that are evaluated in one round; more were slower."""
AT_ONCE = 256
"""Number of questions that are decoded at once."""


@dataclass
class TrieNode:
    """The answers that begin with the same tokens."""

    edge: list[int] = field(default_factory=list)
    """Tokens from the parent to this node; empty for the root."""
    children: "dict[int, TrieNode]" = field(default_factory=dict)
    """Nodes by the first token of their edge; empty where an answer ends."""
    answer: int = -1
    """Index of the answer that ends here, or -1."""


class AnswerTrie:
    """Answers as a compressed trie of their tokens.

    Args:
        answers: ids of each answer, EOS included, which occurs only at the end; no answer occurs twice.
    """

    def __init__(self, answers: Sequence[Sequence[int]]) -> None:
        self.answers = [list(answer) for answer in answers]
        order = sorted(range(len(answers)), key=lambda number: self.answers[number])
        self.root = TrieNode(children=self._children(order, 0))

    def __len__(self) -> int:
        return len(self.answers)

    def _children(self, order: list[int], depth: int) -> dict[int, TrieNode]:
        """The nodes below a prefix of `depth` tokens that the sorted answers `order` share."""
        groups = itertools.groupby(order, key=lambda number: self.answers[number][depth])
        return {token: self._node(list(numbers), depth) for token, numbers in groups}

    def _node(self, order: list[int], depth: int) -> TrieNode:
        first, last = self.answers[order[0]], self.answers[order[-1]]  # of sorted answers these differ earliest
        if len(order) == 1:
            return TrieNode(first[depth:], {}, order[0])
        end = depth + 1
        while first[end] == last[end]:
            end += 1
        return TrieNode(first[depth:end], self._children(order, end))


@dataclass(frozen=True)
class _Prefix:
    """A prefix of some answers whose log-probability is known up to the first token of its last edge."""

    node: TrieNode
    ids: list[int]
    """All tokens, those of the last edge included."""
    log_probabilities: list[float]
    """Of the tokens that are evaluated, in nats."""

    @property
    def evaluated(self) -> bool:
        """Whether an answer ends here and the probability of each of its tokens is known."""
        return self.node.answer >= 0 and len(self.log_probabilities) == len(self.ids)


class _Search:
    """The best-first search for the answer to one prompt."""

    def __init__(self, prompt: list[int], trie: AnswerTrie) -> None:
        self.prompt = prompt
        self._numbers = itertools.count()  # break ties
        self._heap: list[tuple[float, int, _Prefix]] = []
        self._push(_Prefix(trie.root, [], []))

    def _push(self, prefix: _Prefix) -> None:
        heapq.heappush(self._heap, (-sum(prefix.log_probabilities), next(self._numbers), prefix))

    def next_prefixes(self) -> list[_Prefix]:
        """Remove and return the prefixes to evaluate next; none if the answer is found."""
        chosen: list[_Prefix] = []
        while self._heap and len(chosen) < WIDTH and not self._heap[0][2].evaluated:
            chosen.append(heapq.heappop(self._heap)[2])
        return chosen

    def continued(self, prefix: _Prefix) -> Continued:
        """What to score to evaluate a prefix."""
        return Continued(self.prompt, prefix.ids, len(prefix.log_probabilities), tuple(prefix.node.children))

    def add(self, prefix: _Prefix, scores: list[float]) -> None:
        """Add what follows an evaluated prefix; `scores` are those of `continued(prefix)`."""
        children = prefix.node.children.values()
        own = prefix.log_probabilities + scores[: len(scores) - len(children)]
        if not children:
            self._push(_Prefix(prefix.node, prefix.ids, own))
        for child, score in zip(children, scores[len(scores) - len(children) :], strict=True):
            self._push(_Prefix(child, prefix.ids + child.edge, [*own, score]))

    def result(self) -> tuple[int, Continuation]:
        """The index of the answer that was found, and the answer."""
        best = self._heap[0][2]
        return best.node.answer, Continuation(best.ids[:-1], True, best.log_probabilities)


def known_answers(
    model: PreTrainedModel, prompts: Sequence[list[int]], trie: AnswerTrie
) -> list[tuple[int, Continuation]]:
    """Find the most likely known answer to each prompt, in order.

    Args:
        model: a causal LM of transformers; it is put into eval mode.
        prompts: prompts, each of at least one token.
        trie: the known answers, at least one.

    Returns:
        The index of each answer in the trie, and the answer: the maximum of the total log-probability over all known
        answers.
    """
    model.eval()
    packed = is_from_transformers(type(model)) or packs_exactly(model)
    found: list[tuple[int, Continuation]] = []
    for begin in range(0, len(prompts), AT_ONCE):
        searches = [_Search(prompt, trie) for prompt in prompts[begin : begin + AT_ONCE]]
        while work := [(search, prefix) for search in searches for prefix in search.next_prefixes()]:
            scores = score_continuations(model, [search.continued(prefix) for search, prefix in work], packed)
            for (search, prefix), log_probabilities in zip(work, scores, strict=True):
                search.add(prefix, log_probabilities)
        found += [search.result() for search in searches]
    return found
