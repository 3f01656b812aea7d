"""The way of Hugging Face `datasets` and TRL from a file of pairs to packed rows, for `benchmark.py data --peers`.

usage: PEERS_PYTHON scripts/benchmarks/trl_packing.py PAIRS TOKENIZER_FOLDER ROW_TOKENS

Runs in an environment of its own that has trl and datasets, and imports nothing of qa_lm. Two processes tokenise; the
packing is TRL's own best fit ("bfd"). Prints one JSON line; imports are not timed.
"""

import importlib.metadata
import json
import os
import resource
import sys
import tempfile
import time

os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}


def main(path: str, tokenizer_folder: str, row_tokens: int) -> None:
    """Load, tokenise, pack."""
    cache = tempfile.TemporaryDirectory()
    os.environ["HF_DATASETS_CACHE"] = cache.name
    import datasets
    from transformers import AutoTokenizer
    from trl.data_utils import pack_dataset

    datasets.disable_progress_bars()
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)

    def encode(batch: dict) -> dict:
        questions = tokenizer(batch["question"])["input_ids"]
        answers = tokenizer([f" {answer}" for answer in batch["answer"]])["input_ids"]
        ids = [[*q, *a, tokenizer.eos_token_id] for q, a in zip(questions, answers, strict=True)]
        return {"input_ids": ids}

    start = time.perf_counter()
    pairs = datasets.load_dataset("json", data_files=path, split="train")
    loaded = time.perf_counter()
    encoded = pairs.map(encode, batched=True, num_proc=2, remove_columns=pairs.column_names)
    tokenised = time.perf_counter()
    packed = pack_dataset(encoded, row_tokens, "bfd")
    first = packed[0]["input_ids"]
    end = time.perf_counter()
    tokens = sum(map(len, packed["input_ids"]))
    usage = [resource.getrusage(who).ru_maxrss // 1024 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    report = {
        "seconds": end - start,
        "load": loaded - start,
        "tokenise": tokenised - loaded,
        "pack": end - tokenised,
        "peak_mib": usage[0] + usage[1],
        "rows": len(packed),
        "fill": tokens / (len(packed) * row_tokens),
        "pairs": len(encoded),
        "versions": {name: importlib.metadata.version(name) for name in ("trl", "datasets", "transformers")},
    }
    assert first
    print(json.dumps(report))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
