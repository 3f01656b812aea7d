"""Our tokens a second, in floating-point operations, as a share of what multiplying matrices alone reaches.

FLOPs per real token of training (forward and backward):

    6 x (weights of the blocks' matrices) + 6 x (weights of the head) x (share of positions that are trained)
    + 12 x layers x width x (mean tokens seen by a token)

Two per weight forward and four backward; embeddings are looked up, not multiplied; a token of an example attends to
those before it and itself, (length + 1) / 2 in the mean. Padding, masked attention and the optimizer count as nothing.

The roof is the median of square products of bfloat16 (of float32, where that is what trains) in the same process. Steps
are measured by a plain loop and by Lightning with all callbacks, which take turns; both do the same products, norm of
the gradients and update. The difference is what Lightning and our Python cost; the smallest model, whose steps are
short, shows it best.
"""

import itertools
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.common import Runs, measured_by, pairs_file

MODELS: dict[str, dict[str, Any]] = {
    "d64 L1 V300": {"kind": "bpe", "vocab": 300, "d": 64, "layers": 1, "architecture": "llama"},
    "d256 L4 V4096": {"kind": "bpe", "vocab": 4096, "d": 256, "layers": 4, "architecture": "llama"},
    "d512 L8 V4096": {"kind": "bpe", "vocab": 4096, "d": 512, "layers": 8, "architecture": "llama"},
    "GPT-2 small": {"kind": "gpt2", "vocab": 0, "d": 768, "layers": 12, "architecture": "gpt2"},
}
STEPS = {"d64 L1 V300": 200, "d256 L4 V4096": 40, "d512 L8 V4096": 10, "GPT-2 small": 6}
TURNS = 3
OPTIMIZER = "adamw"
COLUMNS = {
    "tokens/s": "tokens_per_second",
    "GFLOP/token": "gflop_per_token",
    "GEMM, GFLOP/s": "roof",
    "share of roof": "share",
    "step, s": "step_seconds",
    "Lightning, ms": "overhead_ms",
}


def compare(file: str, rounds: int, tokens: int, models: list[str], attention: list[str]) -> Runs:
    """Each model, taking turns, each time in a process of its own.

    Args:
        file: a file of pairs.
        rounds: how often each runs.
        tokens: positions of a step.
        models: names of `MODELS`.
        attention: `training` for that of a run, `fused` for the fused one of transformers.
    """
    sides: Runs = {}
    with tempfile.TemporaryDirectory() as folder:
        pairs = pairs_file(file, None, Path(folder))
        for _ in range(rounds):
            for name, kind in itertools.product(models, attention):
                side = name if kind == "training" else f"{name}, fused attention"
                sides.setdefault(side, []).append(measured_by("roof", name, str(pairs), str(tokens), kind))
    return sides


def flops_per_token(model: Any, vocab: int, width: int, layers: int, trained: float, seen: float) -> float:
    """The formula above.

    Args:
        model: the network.
        vocab: entries of the vocabulary.
        width: of the residual stream; heads together are as wide.
        layers: number of blocks.
        trained: share of the real positions that carry loss.
        seen: mean number of tokens that a token attends to.
    """
    from torch import nn

    indexed = {id(p) for module in model.modules() if isinstance(module, nn.Embedding) for p in module.parameters()}
    indexed.add(id(model.get_output_embeddings().weight))
    blocks = sum(p.numel() for p in model.parameters() if p.ndim == 2 and id(p) not in indexed)
    return 6 * blocks + 6 * vocab * width * trained + 12 * layers * width * seen


def gemm(device: Any, dtype: Any) -> float:
    """FLOP/s of square products."""
    import torch

    size = 2048 if device.type == "cpu" else 8192
    left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    seconds = []
    for _ in range(12):
        start = time.perf_counter()
        (left @ right)[0, 0].item()
        seconds.append(time.perf_counter() - start)
    return 2 * size**3 / statistics.median(seconds[2:])


def measure(name: str, pairs: str, tokens: int, attention: str) -> dict[str, Any]:
    """One model's figures."""
    import torch

    from benchmarks.in_process import built, plain_steps

    found = built(MODELS[name], pairs, tokens, OPTIMIZER, attention == "fused")
    steps = STEPS[name] if found.device.type == "cpu" else 200
    plain_seconds, lightning_seconds, roofs = [], [], []
    for _ in range(TURNS):
        some, real = plain_steps(found, steps)
        plain_seconds += some
        lightning_seconds += found.fit(steps)
        roofs.append(gemm(found.device, torch.bfloat16 if found.precision == "bf16-mixed" else torch.float32))
    plain, seconds, roof = (statistics.median(each) for each in (plain_seconds, lightning_seconds, roofs))
    lengths, model = found.lengths, MODELS[name]
    seen = float((lengths * (lengths + 1) / 2).sum() / lengths.sum())
    vocab = found.module.model.config.vocab_size
    flops = flops_per_token(found.module.model, vocab, model["d"], model["layers"], 1.0, seen)
    return {
        "tokens_per_second": real / seconds,
        "gflop_per_token": flops / 1e9,
        "roof": roof / 1e9,
        "share": real / seconds * flops / roof,
        "share_of_plain_steps": real / plain * flops / roof,
        "step_seconds": seconds,
        "plain_step_seconds": plain,
        "overhead_ms": (seconds - plain) * 1000,
        "compiled": found.compilation,
    }


if __name__ == "__main__":
    import json

    print(json.dumps(measure(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4])))
