"""The pairs as the peers train and are asked them: the same ids for each. Imports nothing of qa_lm."""

import json
from pathlib import Path

Example = tuple[list[int], int]
"""Ids of question, line break, answer, EOS, and how many are the prompt's."""


def encoded(model: str, path: str) -> list[Example]:
    """Encode each pair of a JSONL file with the tokenizer of a model's folder."""
    from tokenizers import Tokenizer

    folder, examples = Path(model), []
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    eos = json.loads((folder / "config.json").read_text(encoding="utf-8"))["eos_token_id"]
    with open(path, encoding="utf-8") as file:
        for pair in map(json.loads, file):
            prompt = tokenizer.encode(pair["question"] + "\n", add_special_tokens=False).ids
            answer = tokenizer.encode(pair["answer"], add_special_tokens=False).ids
            examples.append(([*prompt, *answer, eos], len(prompt)))
    return examples
