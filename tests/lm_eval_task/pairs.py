"""The pairs that the task pairs.yaml asks. It needs no qa_lm: the harness may have an environment of its own."""

import json
from pathlib import Path

from datasets import Dataset

PAIRS = Path(__file__).with_suffix(".jsonl")
Texts = dict[str, str | list[str]]


def load(pairs: str = str(PAIRS), pretrained: str = "", **_: object) -> dict[str, Dataset]:
    """The pairs of a JSONL file: `prompt`, and `targets`, the texts that count as right after it.

    Args:
        pairs: the file; of each line `question` and `answer` are read, which may be a list of answers.
        pretrained: the model's folder; a run's `model/` says how its pairs are written.
        _: what else the harness hands on: the other arguments of the model and the task's version.
    """
    template = {"prompt": "{question}", "answer": " {answer}"}
    written = Path(pretrained, "prompt_template.json")
    if written.is_file():
        template = json.loads(written.read_text(encoding="utf-8"))
    with Path(pairs).open(encoding="utf-8") as file:
        rows = [_row(json.loads(line), template) for line in file if line.strip()]
    return {"test": Dataset.from_list(rows)}


def _row(pair: Texts, template: dict[str, str]) -> Texts:
    answers = [pair["answer"]] if isinstance(pair["answer"], str) else pair["answer"]
    return {
        "question": pair["question"],
        "prompt": template["prompt"].replace("{question}", str(pair["question"])),
        "targets": [template["answer"].replace("{answer}", answer) for answer in answers],
    }
