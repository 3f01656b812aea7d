"""A logger of your own: every number as a line of JSON. Run it by `python examples/own_logger.py`."""

import json
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities.rank_zero import rank_zero_only

import qa_lm


class JsonLines(Logger):
    """Appends settings and metrics to a file as they come.

    Args:
        path: the file.
    """

    name, version = "json_lines", 0

    def __init__(self, path: str | Path) -> None:
        super().__init__()
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)

    @rank_zero_only
    def log_hyperparams(self, params: Any, *more: Any) -> None:
        """Called once, before training, with all settings by dotted names."""
        self._append({"settings": dict(params)})

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Called at each step that is logged and at each epoch; `step` counts optimizer steps."""
        self._append({"step": step, **metrics})

    def _append(self, record: dict[str, Any]) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record, default=str) + "\n")


if __name__ == "__main__":
    config = qa_lm.compose("model=tiny", "tokenizer=bpe", "trainer.max_epochs=5")
    qa_lm.train(config, loggers=[JsonLines("outputs/metrics.jsonl")])
    print(Path("outputs/metrics.jsonl").read_text().splitlines()[-1])
