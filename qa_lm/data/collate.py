"""Examples to a batch of padded rows."""

from collections.abc import Sequence

import torch

from qa_lm.batch import UNTRAINED, Batch
from qa_lm.data.encoding import Example


def collate(examples: Sequence[Example], train_on_question: bool) -> Batch:
    """One example per row, inputs and targets shifted by one, padded on the right to the longest.

    Args:
        examples: what goes into the batch, at least one.
        train_on_question: whether the question's own tokens carry loss too; the answer's and EOS always do.
    """
    rows, time = len(examples), max(len(example.ids) for example in examples) - 1
    inputs = torch.zeros(rows, time, dtype=torch.int64)  # (rows, time)
    targets = torch.full((rows, time), UNTRAINED)
    pair = torch.full((rows, time), -1)
    in_answer = torch.zeros(rows, time, dtype=torch.bool)
    for row, (ids, prompt_tokens) in enumerate(examples):
        length = len(ids) - 1
        encoded = torch.tensor(ids)
        # The prompt's last token is the one that predicts the answer's first.
        answer_start = prompt_tokens - 1
        trained_from = 0 if train_on_question else answer_start
        inputs[row, :length] = encoded[:-1]
        targets[row, trained_from:length] = encoded[1 + trained_from :]
        pair[row, :length] = row
        in_answer[row, answer_start:length] = True
    positions = torch.arange(time).expand(rows, time).contiguous()
    tokens = sum(len(example.ids) - 1 for example in examples)
    return Batch(inputs, targets, positions, pair, in_answer, pairs=rows, tokens=tokens)
