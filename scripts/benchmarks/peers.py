"""Like for like: the same Llama, GPT-2's tokenizer, the same pairs; tokens a second and peak memory of every side.

The peers train in bfloat16 where the machine multiplies it faster than float32, as ours do: elsewhere it would slow
them.
"""

import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.common import SCRIPTS, Runs, child, gpt2_folder, our_run, pairs_file, shown

MODEL = {
    "hidden_size": 256,
    "intermediate_size": 688,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "max_position_embeddings": 1024,
    "tie_word_embeddings": True,
}
OUR_TOKENS = 2048
"""Positions of our steps, as many as those of TRL's 8 rows of 256."""
OUR_STEPS = 96
"""Steps of our side. All are measured: the run counts its tokens and seconds as a whole."""
COLUMNS = {"tokens/s": "tokens_per_second", "peak, MiB": "peak_mib", "step, s": "step_seconds"}
STEPS = {"loop": 40, "trainer": 53}
"""Steps of a side, 8 where it is not named; the first three are not measured. The Trainer sorts 50 batches by length,
the longest first, so fewer would not be typical."""
TRAINER_PAIRS = (32, 64)
"""Pairs a step of the compiled Trainer, at the end of the side's name: which number is fastest depends on the file."""


def compare(files: list[str], count: int | None, rounds: int, python: str, litgpt: str | None, row: int) -> Runs:
    """Every side on every file, taking turns.

    Args:
        files: files of pairs.
        count: pairs of each that are used; None for all.
        rounds: how often each side runs.
        python: the Python of an environment with the extra `bench`.
        litgpt: the Python of an environment with LitGPT; None leaves it out.
        row: tokens of TRL's and LitGPT's packed rows; raised where a pair is longer.
    """
    sides: Runs = {}
    others = peers(litgpt is not None)  # once: a measurement that came out otherwise would name other sides
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        for number in range(rounds):
            for path in files:
                pairs = pairs_file(path, count, work)
                longest = row_for(pairs, work, row)
                name = Path(path).name.split(".")[0]
                found = ours(pairs, work / f"ours-{number}-{name}", row_for(pairs, work, 64))
                sides.setdefault(f"{name}: ours", []).append(_with_mib(found))
                for side in others:
                    found = theirs(side, pairs, work, longest, python, litgpt)
                    sides.setdefault(f"{name}: {side}", []).append(_with_mib(found))
    return sides


def print_fastest(sides: Runs) -> None:
    """A line per file: ours next to the peer with the most tokens a second, by medians.

    Args:
        sides: runs by `FILE: SIDE`, as `compare` returns them.
    """
    medians = {
        name: {key: statistics.median(run[key] for run in runs) for key in ("tokens_per_second", "peak_memory")}
        for name, runs in sides.items()
    }
    for name, own in medians.items():
        file, _, side = name.partition(": ")
        others = {other: found for other, found in medians.items() if other.startswith(f"{file}: ") and other != name}
        if side != "ours" or not others:
            continue
        fastest = max(others, key=lambda other: others[other]["tokens_per_second"])
        speed, memory = (own[key] / others[fastest][key] for key in ("tokens_per_second", "peak_memory"))
        print(
            f"{file}: {speed:.2f} times the tokens/s of the fastest peer, {fastest[len(file) + 2 :]}, with "
            f"{memory:.2f} times its memory"
        )


def _with_mib(found: dict[str, Any]) -> dict[str, Any]:
    return found | {"peak_mib": found["peak_memory"] / 2**20}


def peers(litgpt: bool) -> list[str]:
    """The other sides, in order; a name says what is switched on."""
    bf16 = precision_suffix()
    trl = [f"trl{bf16}-{on}-compile" for on in ("length", "packing", "packing-wrapped")]
    trainer = [f"trainer{bf16}", *(f"trainer{bf16}-compile-{pairs}" for pairs in TRAINER_PAIRS)]
    return ["loop", *trainer, "trl", *trl, *([f"litgpt{bf16}"] if litgpt else [])]


def precision_suffix() -> str:
    """`-bf16` where that is what trains fastest on this machine."""
    from qa_lm.training.hardware import choose_precision

    return "-bf16" if choose_precision({})[0] == "bf16-mixed" else ""


def row_for(pairs: Path, work: Path, row: int) -> int:
    """The row, doubled until it holds every pair."""
    from qa_lm.data.tokenizer import gpt2_tokenizer

    tokenizer = gpt2_tokenizer()
    with pairs.open(encoding="utf-8") as file:
        texts = [f"{pair['question']} {pair['answer']}" for pair in map(json.loads, file)]
    longest = max(len(ids) for ids in tokenizer.encode(texts)) + 2
    while row < longest:
        row *= 2
    return row


def theirs(side: str, pairs: Path, work: Path, row: int, python: str, litgpt: str | None) -> dict[str, Any]:
    """A side of `peers` in its own environment."""
    is_litgpt = side.startswith("litgpt")
    who, script = (str(litgpt), "litgpt_training.py") if is_litgpt else (python, "trainers.py")
    settings: dict[str, Any] = {"side": side, "pairs": str(pairs), "tokenizer": str(gpt2_folder(work)), "model": MODEL}
    settings |= {"steps": STEPS.get(side.split("-")[0], 8), "row": row}
    pairs_a_step = side.rpartition("-")[2]
    if pairs_a_step.isdigit():
        settings["batch_size"] = int(pairs_a_step)
    return child([who, str(SCRIPTS / "benchmarks" / script), json.dumps(settings)])


def model_overrides() -> list[str]:
    """`MODEL` as settings of ours."""
    derived = ("hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads")
    extra = {name: value for name, value in MODEL.items() if name not in (*derived, "max_position_embeddings")}
    return [
        "model=fitted",
        f"model.hidden_size={MODEL['hidden_size']}",
        f"model.layers={MODEL['num_hidden_layers']}",
        f"model.heads={MODEL['num_attention_heads']}",
        f"model.context={MODEL['max_position_embeddings']}",
        *(f"+model.extra.{name}={str(value).lower()}" for name, value in extra.items()),
    ]


def ours(pairs: Path, folder: Path, row: int) -> dict[str, Any]:
    """The recipe's fast path with AdamW; every pair is trained, as it stands. The first steps count too."""
    overrides = [
        *("experiment=recall", f"data.path={pairs}", f"data.validation_path={pairs}", "tokenizer=gpt2"),
        *("optimizer=adamw", "optimizer.lr=1e-3", "compile=true", "evaluation.max_pairs=0"),
        *("stop_at_recall=null", "monitor=val/loss", "monitor_mode=min", "evaluation.recall_pairs=0"),
        *("data.augment=0", "trainer.max_epochs=100", "trainer.limit_val_batches=0", *model_overrides()),
        *(f"data.row_tokens={row}", f"data.batch_size={max(1, OUR_TOKENS // row)}"),
    ]
    metrics = our_run(folder, [*overrides, f"trainer.max_steps={OUR_STEPS}"])
    return shown("ours", {name: metrics[name] for name in ("tokens_per_second", "peak_memory", "seconds", "steps")})
