"""Kill runs at random moments, resume them, and compare the result with that of an uninterrupted run.

    python -m tests.faults.resume.kill_runs FOLDER RUNS SEED

The processes are forked from one that has imported everything, so that a run takes a second and not ten. Prints a line
of JSON: how many runs, kills and resumptions there were, the moments, and what differed.
"""

import contextlib
import io
import json
import os
import random
import signal
import sys
import time
import traceback
from collections import Counter
from pathlib import Path

import torch

from qa_lm.config.enums import FinetuneMethod
from qa_lm.config.schema import FinetuneConfig, ModelConfig, TrainConfig
from qa_lm.training.checkpointing.comparison import first_difference
from qa_lm.training.train import train
from tests.conftest import small_config

EVERY_STEPS = 2
MAX_KILLS = 3


PRETRAINED = 3
"""The first kind that starts from a pretrained model."""
KINDS = 5


def settings(kind: int, base: Path) -> TrainConfig:
    """One of several kinds of runs, all with dropout, a new order each epoch, and saves every second step.

    Args:
        kind: number of the kind.
        base: folder of the pretrained model of the last kinds.
    """
    start = {"path": str(base), "architecture": None, "hidden_size": None, "layers": None, "heads": None}
    pretrained = {"model": ModelConfig(**start), "data__packing": True, "data__row_tokens": 128}  # type: ignore[arg-type]
    lora = FinetuneConfig(method=FinetuneMethod.lora, average=None, dropout=0.2)
    kinds: list[dict[str, object]] = [
        {"early_stopping__patience": 2},
        {"data__packing": True, "data__row_tokens": 128},
        {"trainer__accumulate_grad_batches": 3, "trainer__val_check_interval": 0.5},
        pretrained | {"finetune": FinetuneConfig(average=None)},
        pretrained | {"finetune": lora},
    ]
    common: dict[str, object] = {"data__shuffle": True, "trainer__max_epochs": 6}
    config = small_config(**common, **kinds[kind])
    config.model.dropout = 0.2
    config.checkpoint.every_steps = EVERY_STEPS
    config.resume = "auto"
    return config


def forked(config: TrainConfig, folder: Path) -> int:
    """Train in a child process. Returns its process id."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        with contextlib.redirect_stdout(io.StringIO()) as said:
            train(config, folder)
        (folder / "said").write_text(said.getvalue())
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def uninterrupted(config: TrainConfig, folder: Path) -> float:
    """Train without interruption. Returns the seconds it took."""
    begin = time.monotonic()
    _, status = os.waitpid(forked(config, folder), 0)
    assert status == 0
    return time.monotonic() - begin


def killed(config: TrainConfig, folder: Path, seconds: float, draw: random.Random, seen: Counter[str]) -> None:
    """Kill a run up to three times, then let it finish."""
    for _ in range(draw.randint(1, MAX_KILLS)):
        child = forked(config, folder)
        time.sleep(draw.uniform(0.0, seconds))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        if os.WIFEXITED(status):  # it had already ended
            assert os.WEXITSTATUS(status) == 0
            break
        seen["kills"] += 1
        seen[moment(folder)] += 1
    if not (folder / "metrics.json").exists():
        uninterrupted(config, folder)


def moment(folder: Path) -> str:
    """The phase in which the run was killed, as its folder shows."""
    if not (folder / "config.yaml").exists():
        return "before the run started"
    if not (folder / "checkpoints" / "last.ckpt").exists():
        return "before the first checkpoint"
    if any((folder / "checkpoints").glob(".*.ckpt.*")):
        return "while a checkpoint was written"
    return "after training" if (folder / "ledger.parquet").exists() else "while training"


def main() -> None:
    """Kill the runs and print the result."""
    folder, runs, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    base = folder / "base" / "model"
    torch.set_num_threads(1)
    draw, seen, different = random.Random(seed), Counter[str](), []
    alone = {}
    for number in range(runs):
        kind = number % KINDS
        if kind >= PRETRAINED and not base.exists():
            uninterrupted(small_config(), base.parent)
        if kind not in alone:
            alone[kind] = uninterrupted(settings(kind, base), folder / f"alone{kind}")
        killed(settings(kind, base), folder / str(number), alone[kind], draw, seen)
        if found := first_difference(folder / f"alone{kind}", folder / str(number)):
            different.append(f"run {number}: {found}")
        leftovers = [each.name for each in (folder / str(number) / "checkpoints").iterdir() if each.name[0] == "."]
        if leftovers:
            different.append(f"run {number}: left {leftovers}")
    print(json.dumps({"runs": runs, "different": different, **seen}))


if __name__ == "__main__":
    main()
