"""TRL's SFTTrainer on a pretrained model, run in an environment of its own, from the folder `scripts`:

    PEERS_PYTHON -m benchmarks.finetune.trl_side SETTINGS

SETTINGS is a JSON object: model (folder), train and held_out (JSONL), method (full, lora), recall and seconds (when to
stop), and for the fast settings fast, bf16, lr, rows (packed rows a step) and epochs. Without `fast` all is TRL's own
default but the number of epochs, which is as many as recall needs. Imports nothing of qa_lm; prints one line of JSON.
"""

import json
import sys
import tempfile
from typing import Any

from benchmarks.finetune.examples import encoded
from benchmarks.trainers import Watch, measured, recall, watched

ROW = 160
"""Tokens of a packed row, as ours."""
EPOCHS = 30
RANK = 16


def main(settings: dict[str, Any]) -> None:
    """Train; print what was measured."""
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer, set_seed
    from trl import SFTTrainer

    set_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(settings["model"])
    model = AutoModelForCausalLM.from_pretrained(settings["model"], dtype=torch.float32)
    examples = {name: encoded(settings["model"], settings[name]) for name in ("train", "held_out")}
    rows = [
        {"input_ids": ids, "completion_mask": [0] * asked + [1] * (len(ids) - asked)}
        for ids, asked in examples["train"]
    ]
    trainer = SFTTrainer(
        model=model,
        args=arguments(settings),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        peft_config=adapter() if settings["method"] == "lora" else None,
    )

    def look() -> dict[str, float]:
        bf16 = bool(settings.get("bf16"))
        pad = tokenizer.eos_token_id
        found = {name: recall(trainer.model, each, pad, bf16) for name, each in examples.items()}
        return {"recall": found["train"], "held_out": found["held_out"]}

    watch = watched(trainer, Watch(), look, settings)
    trainer.train()
    tokens = sum(len(ids) for ids, _ in examples["train"]) * len(watch.history)
    found = watch.report() | {"tokens_per_second": tokens / watch.seconds}
    print(json.dumps(found | measured(("torch", "transformers", "trl", "peft"))))


def arguments(settings: dict[str, Any]) -> Any:
    """TRL's defaults, or what is fastest."""
    import torch
    from trl import SFTConfig

    own: dict[str, Any] = {}
    if settings.get("fast"):
        own = {
            "bf16": settings["bf16"],
            "gradient_checkpointing": False,
            "packing": True,
            "max_length": ROW,
            "per_device_train_batch_size": settings["rows"],
            "learning_rate": settings["lr"],
            "lr_scheduler_type": "constant",
            "optim": "adamw_torch_fused",
            "adam_beta2": 0.95,
        }
    return SFTConfig(
        output_dir=tempfile.mkdtemp(),
        num_train_epochs=settings.get("epochs", EPOCHS),
        report_to=[],
        save_strategy="no",
        logging_steps=10_000,
        disable_tqdm=True,
        use_cpu=not torch.cuda.is_available(),
        dataloader_pin_memory=False,
        **own,
    )


def adapter() -> Any:
    """Matrices next to all linear layers, of our rank."""
    from peft import LoraConfig

    return LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules="all-linear", task_type="CAUSAL_LM")


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
