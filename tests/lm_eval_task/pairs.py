"""The pairs that the task pairs.yaml asks. It needs no qa_lm: the harness may have an environment of its own."""

import json
from pathlib import Path

from datasets import Dataset

PAIRS = Path(__file__).with_suffix(".jsonl")


def load(pairs: str = str(PAIRS), **_: object) -> dict[str, Dataset]:
    """The pairs of a JSONL file: `question`, and `targets`, the texts that count as right after it.

    Args:
        pairs: the file; of each line `question` and `answer` are read, which may be a list of answers.
        _: what else the harness hands on: the arguments of the model and the task's version.
    """
    with Path(pairs).open(encoding="utf-8") as file:
        rows = [_row(json.loads(line)) for line in file if line.strip()]
    return {"test": Dataset.from_list(rows)}


def _row(pair: dict[str, str | list[str]]) -> dict[str, str | list[str]]:
    answers = [pair["answer"]] if isinstance(pair["answer"], str) else pair["answer"]
    return {"question": pair["question"], "targets": [f" {answer}" for answer in answers]}
