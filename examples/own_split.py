"""A split of your own: hold out the longest answers, to see whether a model generalises to longer ones.

From Python: `python examples/own_split.py`. On the command line, in the folder of this file:
`train.py trust=own_split data.split=long_answers`, or `check_data.py FILE --split long_answers --trust own_split`.
"""

import numpy as np

import qa_lm
from qa_lm.data.splits.registry import PairsToSplit


@qa_lm.register_split("long_answers")
def long_answers(pairs: PairsToSplit, seed: int, train_fraction: float) -> np.ndarray:
    """A mask of the pairs to hold out, (pairs,) bool. `for pair in pairs` gives their texts."""
    order = pairs.numbers("answer_characters").argsort(kind="stable")
    held_out = np.zeros(len(pairs), bool)
    held_out[order[round(train_fraction * len(pairs)) :]] = True
    return held_out


if __name__ == "__main__":
    run = qa_lm.train(qa_lm.compose("data.split=long_answers", "model=tiny", "tokenizer=bpe", "trainer.max_epochs=5"))
    print([answer.answer for answer in run.answers if answer.split == "validation"])
