"""All processes of a run must train the same: compared before the first step."""

import hashlib
import json
import socket
from dataclasses import asdict
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback

from qa_lm.config.schema import TrainConfig
from qa_lm.errors import UserError
from qa_lm.training.distributed.collectives import all_gathered

COMPARED = {
    "data_sha256": "pairs",
    "split_sha256": "a split of the pairs",
    "tokenizer_sha256": "a tokenizer",
    "base_sha256": "a pretrained model",
    "resumed_after_step": "a checkpoint",
    "settings": "settings",
}
"""What is compared, and what the message calls it."""
MAY_DIFFER = {
    "": ("name", "tags", "loggers", "resume", "trust", "compile", "distributed", "budget"),
    "data": ("path", "validation_path", "test_path", "cache", "workers"),
    "model": ("path",),
    "evaluation": ("encoder",),
}
"""Settings that may differ between the processes, by group."""


def settings_digest(config: TrainConfig) -> str:
    """sha256 of the settings that all processes must have: all but the places of files, the name and the loggers."""
    shared = asdict(config)
    for group, names in MAY_DIFFER.items():
        for name in names:
            (shared[group] if group else shared).pop(name)
    return hashlib.sha256(json.dumps(shared, sort_keys=True, default=str).encode()).hexdigest()


class DifferentRun(UserError):
    """The processes of a run do not have the same; nothing was trained."""


class SameRun(Callback):
    """Ends a run whose processes do not have the same pairs, tokenizer, pretrained model and checkpoint.

    Args:
        facts: what this process has, by the names of `COMPARED`.
    """

    def __init__(self, facts: dict[str, Any]) -> None:
        self.facts = {name: facts.get(name) for name in COMPARED} | {"host": socket.gethostname()}

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Compare.

        Raises:
            DifferentRun: names the first process that differs from the first one, in that one.
            SystemExit: the same in all other processes.
        """
        everyone = all_gathered(trainer, self.facts)
        for rank, facts in enumerate(everyone):
            for name, what in COMPARED.items():
                if facts[name] == everyone[0][name]:
                    continue
                if not trainer.is_global_zero:
                    raise SystemExit(2)
                values = [str(each[name])[:12] for each in (everyone[0], facts)]
                raise DifferentRun(
                    f"process {rank} on {facts['host']} has {what} of its own ({values[1]}; process 0 on "
                    f"{everyone[0]['host']} has {values[0]}); give all processes the same files"
                )
