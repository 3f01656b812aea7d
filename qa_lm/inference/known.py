"""Decode the most likely one of the known answers: an exact best-first search in a trie of their tokens.

The log-probability of a prefix is an upper bound for every answer that begins with it, so the search evaluates the most
likely prefix first and ends when the most likely one is a whole answer. A certain model needs two or three forward
passes, in which all questions take part; an uncertain one evaluates more prefixes. When few questions are left, each
evaluates several likely prefixes in one pass, since small passes take about as long as smaller ones.
"""

import heapq
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from transformers import PreTrainedModel

from qa_lm.inference.sampling import Continuation
from qa_lm.inference.scoring import POSITIONS, Continued, Scorer

TOKENS = 128
"""Tokens of prefixes that all questions together evaluate in one round, unless one prefix each is more."""
MARGIN = 2.0
"""Nats by which a prefix that is evaluated in a round may be less likely than the best one."""
AT_ONCE = 256
"""Maximum number of questions that are decoded at once; their prompts have at most `POSITIONS` positions."""


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

    def followers(self, scores: np.ndarray) -> Iterator["_Prefix"]:
        """What follows, the most likely first.

        Args:
            scores: log-probabilities of the tokens of the last edge that were not evaluated, and of the children.
        """
        children = list(self.node.children.values())
        own, first = np.split(scores, [len(scores) - len(children)])
        known = self.log_probabilities + own.tolist()
        if not children:
            yield _Prefix(self.node, self.ids, known)
        for place in (-first).argsort(kind="stable"):
            yield _Prefix(children[place], self.ids + children[place].edge, [*known, float(first[place])])


class _Search:
    """The best-first search for the answer to one prompt."""

    def __init__(self, prompt: int, trie: AnswerTrie) -> None:
        self.prompt = prompt
        self._numbers = itertools.count()  # break ties
        # Of the followers of a prefix only the most likely one that is left, and an iterator of the others.
        self._heap: list[tuple[float, int, _Prefix, Iterator[_Prefix]]] = []
        self.add(iter([_Prefix(trie.root, [], [])]))

    def add(self, prefixes: Iterator[_Prefix]) -> None:
        """Add prefixes, the most likely first."""
        for prefix in prefixes:
            total = sum(prefix.log_probabilities)
            heapq.heappush(self._heap, (-total, next(self._numbers), prefix, prefixes))
            break

    @property
    def found(self) -> bool:
        """Whether the answer is found."""
        return self._heap[0][2].evaluated

    def next_prefixes(self, tokens: float) -> list[_Prefix]:
        """Remove and return the prefixes to evaluate next: at least one, then up to a number of tokens."""
        chosen: list[_Prefix] = []
        longest, best = 0, self._heap[0][0]
        while self._heap and not self.found and self._heap[0][0] - best <= MARGIN:
            longest = max(longest, len(self._heap[0][2].ids))
            if chosen and longest * (len(chosen) + 1) > tokens:
                break
            _, _, prefix, others = heapq.heappop(self._heap)
            chosen.append(prefix)
            self.add(others)
        return chosen

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
    found: dict[int, tuple[int, Continuation]] = {}
    order = sorted(range(len(prompts)), key=lambda number: -len(prompts[number]))
    while order:
        count = min(AT_ONCE, max(1, POSITIONS // len(prompts[order[0]])))
        numbers, order = order[:count], order[count:]
        found.update(zip(numbers, _search(model, [prompts[number] for number in numbers], trie), strict=True))
    return [found[number] for number in range(len(prompts))]


def _search(
    model: PreTrainedModel, prompts: Sequence[list[int]], trie: AnswerTrie
) -> Iterator[tuple[int, Continuation]]:
    """Search the answers to all prompts at once."""
    scorer = Scorer(model, prompts)
    searches = [_Search(number, trie) for number in range(len(prompts))]
    while running := [search for search in searches if not search.found]:
        work = [(search, prefix) for search in running for prefix in search.next_prefixes(TOKENS / len(running))]
        asked = [
            Continued(search.prompt, prefix.ids, len(prefix.log_probabilities), tuple(prefix.node.children))
            for search, prefix in work
        ]
        for (search, prefix), scores in zip(work, scorer(asked), strict=True):
            search.add(prefix.followers(scores))
    return (search.result() for search in searches)
