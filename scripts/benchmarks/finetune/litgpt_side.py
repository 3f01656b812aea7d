"""LitGPT's fine-tuning on a pretrained model, run in an environment of its own, from the folder `scripts`:

    LITGPT_PYTHON -m benchmarks.finetune.litgpt_side SETTINGS

SETTINGS is the JSON object of trl_side.py. These are the steps of LitGPT's `finetune_full` and `finetune_lora` with
their defaults, by its own parts: the folder converted to its format, one pair a micro-batch and 16 a step, loss of
question and answer, AdamW with torch's rate, a warm-up of 100 steps, 5 epochs, LoRA of rank 8 next to queries and
values. The prompt is the plain one of the other sides. Prints one line of JSON.
"""

import json
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.finetune.examples import encoded
from benchmarks.trainers import measured

BATCH, WARMUP, EPOCHS = 16, 100, 5
LORA = {"lora_r": 8, "lora_alpha": 16, "lora_dropout": 0.05, "lora_query": True, "lora_value": True}


def main(settings: dict[str, Any]) -> None:
    """Train; print what was measured."""
    import torch
    from lightning.fabric import Fabric
    from litgpt.utils import chunked_cross_entropy

    fabric = Fabric(accelerator="auto", devices=1, precision="32-true")
    fabric.seed_everything(0)
    source = Path(settings["model"])
    examples = {name: encoded(settings["model"], settings[name]) for name in ("train", "held_out")}
    model = fabric.setup(network(source, settings["method"]))
    optimizer: Any = fabric.setup_optimizers(torch.optim.AdamW([p for p in model.parameters() if p.requires_grad]))
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, step / WARMUP))
    train, seconds, number, history = examples["train"], 0.0, 0, []
    for epoch in range(EPOCHS):
        total = 0.0
        for ids, _ in random.Random(epoch).sample(train, len(train)):
            begin, number = time.perf_counter(), number + 1
            row = fabric.to_device(torch.tensor([ids]))
            logits = model(row, lm_head_chunk_size=128)
            logits[-1] = logits[-1][..., :-1, :]
            loss = chunked_cross_entropy(logits, row[..., 1:])
            fabric.backward(loss / BATCH)
            if number % BATCH == 0:
                optimizer.step()
                optimizer.zero_grad()
                scheduler.step()
            seconds, total = seconds + time.perf_counter() - begin, total + float(loss)
        found = {name: right(model, each) for name, each in examples.items()}
        look = {"seconds": seconds, "loss": total / len(train), "recall": found["train"], "held_out": found["held_out"]}
        history.append(look)
        print(look, file=sys.stderr, flush=True)
        if look["recall"] >= settings["recall"] or seconds > settings["seconds"]:
            break
    tokens = len(history) * sum(len(ids) for ids, _ in train)
    report: dict[str, Any] = {
        "history": history,
        "seconds": seconds,
        "steps": number // BATCH,
        "tokens_per_second": tokens / seconds,
    }
    print(json.dumps(report | measured(("torch", "litgpt"))))


def network(source: Path, method: str) -> Any:
    """The pretrained model in LitGPT's classes, with an adapter for LoRA."""
    import torch
    from litgpt import lora, model
    from litgpt.scripts.convert_hf_checkpoint import convert_hf_checkpoint

    folder = Path(tempfile.mkdtemp())
    for file in source.iterdir():
        if file.is_file():
            shutil.copyfile(file, folder / file.name)
    convert_hf_checkpoint(folder, model_name="SmolLM2-135M-Instruct")
    weights = torch.load(folder / "lit_model.pth", mmap=True)
    if method == "full":
        found = model.GPT(model.Config.from_file(folder / "model_config.yaml"))
        found.load_state_dict(weights)
        return found
    adapted = lora.GPT(lora.Config.from_file(folder / "model_config.yaml", **LORA))
    adapted.load_state_dict(weights, strict=False)
    lora.mark_only_lora_as_trainable(adapted)
    return adapted


def right(model: Any, examples: list[tuple[list[int], int]]) -> float:
    """Share of the pairs whose answer and EOS are all argmax under teacher forcing."""
    import torch

    model.eval()
    count = 0
    with torch.no_grad():
        for ids, asked in examples:
            best = model(torch.tensor([ids[:-1]], device=next(model.parameters()).device)).argmax(-1)[0].tolist()
            count += best[asked - 1 :] == ids[asked:]
    model.train()
    return count / len(examples)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
