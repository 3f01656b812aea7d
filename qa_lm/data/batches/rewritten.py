"""Prompts with questions as people write them, for the rows of an epoch.

Rows are planned on the lengths of the questions as they stand, plus some positions for each pair, so that most
rewritten questions fit. The others stay as they are. Therefore all epochs have the same number of rows and one shape.
"""

import numpy as np

from qa_lm.data.augment import Rewriter
from qa_lm.data.batches.store import Spans
from qa_lm.data.encoding import PromptTemplate, encode_prompts
from qa_lm.data.pairs import normalise_question, text_key
from qa_lm.data.table import PairTable
from qa_lm.data.tokenizer import TextTokenizer

GROWTH = 4
"""Tokens kept free for a rewritten question. Measured: it has 2.5 to 3.7 tokens more on average (docs/log.md)."""


def rewritten_share(share: float, template: PromptTemplate) -> float:
    """Share of the questions to rewrite: none if the prompt has several columns, because only a question may change."""
    return share if len(template.question_parts) == 1 else 0.0


def room_per_pair(share: float) -> int:
    """Positions of a row that are kept free for each pair, if this share of the questions is rewritten."""
    return round(GROWTH * share)


class RewrittenPrompts:
    """Rewrites and encodes the questions of training rows.

    The results depend only on the rewriter, the epoch and the text, not on the process. A rewritten question is not
    used if its normalised form is that of another pair: it could contradict that pair, or be a held-out question.

    Args:
        table: all pairs.
        tokenizer: encodes the prompts.
        template: the prompt around a question.
        rewriter: rewrites a share of the questions.
        limit: maximum number of inputs of an example.
    """

    def __init__(
        self, table: PairTable, tokenizer: TextTokenizer, template: PromptTemplate, rewriter: Rewriter, limit: int
    ) -> None:
        self.table, self.tokenizer, self.template = table, tokenizer, template
        self.rewriter, self.limit = rewriter, limit
        self.room = room_per_pair(rewriter.share)
        """Positions of a row that are kept free for each pair."""
        self._keys = np.sort(table.numbers("normalised_key"))

    def prompts(self, indices: np.ndarray, epochs: np.ndarray) -> dict[int, list[int]]:
        """Rewrite a share of the questions.

        Args:
            indices: indices of the pairs in the table.
            epochs: epoch of each pair.

        Returns:
            The ids of the rewritten prompts, by their place in `indices`.
        """
        texts: dict[int, str] = {}
        for place, question in enumerate(self.table.questions(indices)):
            rewritten = self.rewriter.rewrite(question, int(epochs[place]))
            if rewritten != question and not self._is_of_another_pair(rewritten, question):
                texts[place] = rewritten
        ids = encode_prompts(list(texts.values()), self.tokenizer, self.template)
        return dict(zip(texts, ids, strict=True))

    def _is_of_another_pair(self, rewritten: str, question: str) -> bool:
        key, own = (np.uint64(text_key(normalise_question(text))) for text in (rewritten, question))
        begin, end = (int(np.searchsorted(self._keys, key, side)) for side in ("left", "right"))
        return end - begin > (key == own)


def with_prompts(ids: np.ndarray, spans: Spans, prompts: dict[int, list[int]]) -> tuple[np.ndarray, Spans]:
    """Copy examples with other prompts.

    Args:
        ids: ids of all examples.
        spans: the examples to copy.
        prompts: new prompts, by the place of their example in `spans`.

    Returns:
        The ids of the copies, and their spans.
    """
    ids, parts = np.asarray(ids), []
    for place, (begin, length, prompt) in enumerate(zip(*spans, strict=True)):
        new = prompts.get(place)
        kept = begin if new is None else begin + prompt
        parts += [np.array(new or (), ids.dtype), ids[kept : begin + length + 1]]
    growth = np.zeros_like(spans.lengths)
    for place, prompt_ids in prompts.items():
        growth[place] = len(prompt_ids) - spans.prompts[place]
    lengths = spans.lengths + growth
    begins = np.cumsum(lengths + 1) - lengths - 1
    return np.concatenate(parts), Spans(begins, lengths, spans.prompts + growth)


def fitting(growth: np.ndarray, row_of: np.ndarray, room: np.ndarray) -> np.ndarray:
    """Return which pairs may grow, so that every row has room: those that grow least first, bool, (pairs,).

    Args:
        growth: additional tokens of each pair, negative if it becomes shorter.
        row_of: row of each pair, ascending.
        room: free positions of each row.
    """
    order = np.lexsort((growth, row_of))
    total = np.cumsum(growth[order])
    first = np.searchsorted(row_of, row_of)  # the first pair of each pair's row
    before = (total - growth[order])[first]
    fits = np.zeros(len(growth), bool)
    fits[order] = total - before <= room[row_of]
    return fits
