"""Names that people read, shared by board.json, the terminal, the reports and TensorBoard."""

from collections.abc import Mapping

BUILTIN_PAIRS = ("capitals", "tutorial")
"""Pairs that come with qa_lm, as `data.path` names them."""

WHOLE_SPLITS = {
    "train": "trained pairs",
    "validation": "all held-out pairs",
    "test": "all test pairs",
    "given": "all pairs",
}
"""Rows of the scoreboard for whole splits."""

TRAINED = "trained question"
NEAR = "near-duplicate of a trained question"
KNOWN_ANSWER = "new question, known answer"
NEW = "new question, new answer"
OVERLAPS = (TRAINED, NEAR, KNOWN_ANSWER, NEW)
"""Overlap of a pair with the trained pairs; the first that applies counts. `TRAINED` ignores case, spaces and final
punctuation."""

UNSEEN_PHRASING = "unseen phrasing of a trained fact"
UNSEEN_FACT = "unseen fact"

EXACT = "exact match"
NORMALISED = "ignoring case and punctuation"
F1 = "word overlap (F1)"
NEAREST = "baseline: nearest question"
COMMON = "baseline: most common answer"
UNTRAINED = "baseline: untrained model"
"""Columns of the scoreboard."""

SPLIT_WORDS = {"train": "trained", "validation": "held-out", "test": "test", "given": "given"}


def interval_text(low: float, high: float) -> str:
    """Format the interval of a share: "52.9% to 97.8%"."""
    return f"{low:.1%} to {high:.1%}"


def pairs_by_split(counts: Mapping[str, int]) -> str:
    """Format the number of pairs per split: "24 held-out and 96 trained pairs"."""
    parts = [f"{count:,} {SPLIT_WORDS.get(split, split)}" for split, count in counts.items() if count]
    return " and ".join(parts) + (" pair" if sum(counts.values()) == 1 else " pairs")
