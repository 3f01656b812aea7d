"""Training with other libraries, run in their own environment: `PEERS_PYTHON scripts/benchmarks/trainers.py SETTINGS`.

SETTINGS is a JSON object: side, pairs (JSONL), tokenizer (folder), model (arguments of LlamaConfig), and either steps
(to measure speed) or recall and seconds (to train until a recall or a time limit is reached). Imports nothing of qa_lm;
prints one line of JSON.

The sides, each with the best settings known for it on a CPU:
loop      the tutorial's: one pair a step, float32, AdamW
trainer   transformers' Trainer: `batch_size` pairs a step (32), padded to the longest, pairs of like length together
trl       TRL's SFTTrainer with default settings except for the batch size (32) and float32
The suffix -bf16 trains in bfloat16; with -length, on pairs of like length together; with -packing, in rows of
`row` tokens (8 a step; whole pairs, kept apart), with -packing-wrapped, in full rows that may cut pairs, which see one
another; with -compile, by torch.compile. All train question and answer with fused AdamW where the Trainer has it,
without checkpoints, logs or evaluation.
"""

import importlib.metadata
import json
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}

WARM = 3
"""First steps, not measured: compilation and allocation."""


def main(settings: dict[str, Any]) -> None:
    """Train a side; print what was measured."""
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, set_seed

    tokenizer = AutoTokenizer.from_pretrained(settings["tokenizer"])
    with open(settings["pairs"], encoding="utf-8") as file:
        pairs = [json.loads(line) for line in file]
    set_seed(0)
    eos = tokenizer.eos_token_id
    model = LlamaForCausalLM(
        LlamaConfig(vocab_size=len(tokenizer), bos_token_id=eos, eos_token_id=eos, use_cache=False, **settings["model"])
    )
    examples = [encoded(tokenizer, pair) for pair in pairs]
    if settings["side"] == "loop":
        watch = loop(model, examples, settings["steps"])
    else:
        watch = with_trainer(model, tokenizer, examples, settings)
    print(json.dumps(watch.report() | measured(("torch", "transformers", "trl"))))


def encoded(tokenizer: Any, pair: dict[str, str]) -> tuple[list[int], int]:
    """Ids of question, space, answer, EOS, and how many are the question's."""
    question, answer = tokenizer(pair["question"]).input_ids, tokenizer(" " + pair["answer"]).input_ids
    return [*question, *answer, tokenizer.eos_token_id], len(question)


class Watch:
    """Time and tokens of steps; in between it may look at recall, off the clock."""

    def __init__(self) -> None:
        self.steps: list[tuple[float, int]] = []
        self.tokens, self.begin = 0, 0.0
        self.history: list[dict[str, float]] = []
        self.losses: list[Any] = []

    def epoch_loss(self) -> float:
        """Mean of the steps' losses since the last call."""
        losses, self.losses = [float(loss) for loss in self.losses], []
        return statistics.mean(losses)

    def start(self) -> None:
        """A step begins."""
        self.tokens, self.begin = 0, time.perf_counter()

    def end(self) -> None:
        """A step has ended."""
        self.steps.append((time.perf_counter() - self.begin, self.tokens))

    @property
    def seconds(self) -> float:
        """Of all steps."""
        return sum(seconds for seconds, _ in self.steps)

    def report(self) -> dict[str, Any]:
        """What was measured."""
        measured = self.steps[WARM:] or self.steps
        speed = [tokens / seconds for seconds, tokens in measured]
        return {
            "tokens_per_second": statistics.median(speed),
            "step_seconds": statistics.median(seconds for seconds, _ in measured),
            "seconds": self.seconds,
            "steps": len(self.steps),
            "history": self.history,
        }


def loop(model: Any, examples: list[tuple[list[int], int]], steps: int) -> Watch:
    """The tutorial's loop."""
    import torch
    import torch.nn.functional as F

    optimizer, watch = torch.optim.AdamW(model.parameters(), lr=5e-5), Watch()
    for ids, _ in (examples * (steps // len(examples) + 1))[:steps]:
        watch.start()
        inputs, targets = torch.tensor([ids[:-1]]), torch.tensor([ids[1:]])
        logits = model(inputs).logits
        loss = F.cross_entropy(logits.view(-1, logits.size(-1)), targets.view(-1))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        watch.tokens = inputs.numel()
        watch.end()
    return watch


def with_trainer(model: Any, tokenizer: Any, examples: list[tuple[list[int], int]], settings: dict[str, Any]) -> Watch:
    """A Trainer's steps, watched from outside."""
    import torch
    from datasets import Dataset

    data = Dataset.from_list([{"input_ids": ids} for ids, _ in examples])
    length = {"max_steps": settings["steps"]} if "steps" in settings else {"num_train_epochs": settings["epochs"]}
    common = {
        "output_dir": tempfile.mkdtemp(),
        "per_device_train_batch_size": settings.get("batch_size", 32),
        "learning_rate": settings.get("lr", 3e-3),
        "lr_scheduler_type": "linear",
        "optim": "adamw_torch_fused",
        "report_to": [],
        "save_strategy": "no",
        "logging_steps": 10_000,
        "disable_tqdm": True,
        "use_cpu": not torch.cuda.is_available(),
        "dataloader_pin_memory": False,
        **length,
    }
    make = plain_trainer if settings["side"].startswith("trainer") else trl_trainer
    optimizer = muon_and_adamw(model, common["learning_rate"]) if settings.get("optimizer") == "muon" else None
    trainer = make(model, tokenizer, data, common, settings, (optimizer, None))

    def look() -> dict[str, float]:
        return {"recall": recall(model, examples, tokenizer.eos_token_id, "bf16" in settings["side"])}

    watch = watched(trainer, Watch(), look if "recall" in settings else None, settings)
    trainer.train()
    return watch


def watched(trainer: Any, watch: Watch, look: Callable[[], dict[str, float]] | None, settings: dict[str, Any]) -> Watch:
    """Time each step of a Trainer and count its tokens; each epoch ends with a look at recall where that is wanted.

    Args:
        trainer: the Trainer.
        watch: what notes it.
        look: measures the model, off the clock; training stops once its `recall` is that of the settings.
        settings: recall and seconds, when to stop.
    """
    import torch
    from transformers import TrainerCallback

    class Watching(TrainerCallback):
        """Times each step."""

        def on_step_begin(self, *arguments: Any, **named: Any) -> None:
            watch.start()

        def on_step_end(self, *arguments: Any, **named: Any) -> None:
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            watch.end()

        def on_epoch_end(self, args: Any, state: Any, control: Any, **named: Any) -> Any:
            if look:
                found = look()
                watch.history.append({"seconds": watch.seconds, "loss": watch.epoch_loss()} | found)
                print(watch.history[-1], file=sys.stderr, flush=True)
                if found["recall"] >= settings["recall"] or watch.seconds > settings["seconds"]:
                    control.should_training_stop = True
            return control

    trainer.add_callback(Watching())
    compute_loss = trainer.compute_loss

    def counting(model: Any, inputs: dict[str, Any], *arguments: Any, **named: Any) -> Any:
        watch.tokens += int((inputs["labels"] != -100).sum())
        loss = compute_loss(model, inputs, *arguments, **named)
        watch.losses.append((loss[0] if isinstance(loss, tuple) else loss).detach())
        return loss

    trainer.compute_loss = counting
    return watch


def measured(packages: tuple[str, ...]) -> dict[str, Any]:
    """Peak memory of this process in bytes, on the GPU where there is one, and the versions of packages."""
    import torch

    if torch.cuda.is_available():
        peak = torch.cuda.max_memory_allocated()
    else:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"peak_memory": peak, "versions": {name: importlib.metadata.version(name) for name in packages}}


def muon_and_adamw(model: Any, lr: float) -> Any:
    """torch's Muon for the hidden matrices and its AdamW for the rest, as the one optimizer that a Trainer takes."""
    import torch

    hidden = {name for name, weights in model.named_parameters() if weights.ndim == 2 and "layers" in name}
    parameters = dict(model.named_parameters())
    groups = [[parameters[name] for name in parameters if (name in hidden) == wanted] for wanted in (True, False)]

    class Both(torch.optim.Optimizer):
        """Steps the two."""

        def __init__(self) -> None:
            super().__init__([{"params": group} for group in groups], {"lr": lr})
            self.parts = (
                torch.optim.Muon(groups[0], lr=lr, weight_decay=0, adjust_lr_fn="match_rms_adamw"),
                torch.optim.AdamW(groups[1], lr=lr, betas=(0.9, 0.95), weight_decay=0, fused=True),
            )

        def step(self, closure: Any = None) -> Any:
            for part in self.parts:
                part.param_groups[0]["lr"] = self.param_groups[0]["lr"]
                part.step()

    return Both()


def plain_trainer(
    model: Any, tokenizer: Any, data: Any, common: dict[str, Any], settings: dict[str, Any], optimizers: Any
) -> Any:
    """transformers' own."""
    from transformers import DataCollatorForSeq2Seq, Trainer, TrainingArguments

    data = data.map(lambda row: {"labels": row["input_ids"], "length": len(row["input_ids"])})
    side = settings["side"]
    common = common | {"bf16": "bf16" in side, "torch_compile": "compile" in side}
    arguments = TrainingArguments(train_sampling_strategy="group_by_length", **common)
    return Trainer(
        model=model,
        args=arguments,
        train_dataset=data,
        data_collator=DataCollatorForSeq2Seq(tokenizer),
        optimizers=optimizers,
    )


def trl_trainer(
    model: Any, tokenizer: Any, data: Any, common: dict[str, Any], settings: dict[str, Any], optimizers: Any
) -> Any:
    """TRL's."""
    from trl import SFTConfig, SFTTrainer

    side = settings["side"]
    packing = "packing" in side
    if packing:
        strategy = "wrapped" if "wrapped" in side else "bfd"
        rows = settings.get("batch_size", 8)
        common = common | {"per_device_train_batch_size": rows, "packing_strategy": strategy}
    elif "length" in side:
        common = common | {"train_sampling_strategy": "group_by_length"}
        data = data.map(lambda row: {"length": len(row["input_ids"])})
    arguments = SFTConfig(
        bf16="bf16" in side,
        packing=packing,
        torch_compile="compile" in side,
        max_length=settings["row"],
        gradient_checkpointing=False,
        **common,
    )
    return SFTTrainer(
        model=model, args=arguments, train_dataset=data, processing_class=tokenizer, optimizers=optimizers
    )


def recall(model: Any, examples: list[tuple[list[int], int]], pad: int, bf16: bool) -> float:
    """Share of the pairs whose answer and EOS are all argmax under teacher forcing, which is to say greedily right."""
    import torch

    model.eval()
    right, order = 0, sorted(range(len(examples)), key=lambda number: len(examples[number][0]))
    with torch.no_grad(), torch.autocast(model.device.type, torch.bfloat16, enabled=bf16):
        for begin in range(0, len(order), 64):
            batch = [examples[number] for number in order[begin : begin + 64]]
            longest = max(len(ids) for ids, _ in batch)
            rows = torch.tensor([ids + [pad] * (longest - len(ids)) for ids, _ in batch], device=model.device)
            best = model(rows[:, :-1], attention_mask=torch.ones_like(rows[:, :-1])).logits.argmax(-1)
            for row, (ids, asked) in enumerate(batch):
                right += best[row, asked - 1 : len(ids) - 1].tolist() == ids[asked:]
    model.train()
    return right / len(examples)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
