"""From a file of question-answer pairs to a causal language model that answers them.

    import qa_lm

    config = qa_lm.compose("experiment=recall", "data.path=faq.jsonl")
    run = qa_lm.train(config, folder="outputs/faq")
    run.ask("What are your opening hours?")

What is listed in `__all__` is imported when it is first used, so that `import qa_lm` takes no time.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from qa_lm.api.run import Run
    from qa_lm.api.train import train
    from qa_lm.config.overrides import compose
    from qa_lm.config.schema import TrainConfig
    from qa_lm.data.batches.datamodule import PairsDataModule
    from qa_lm.data.readers.formats import register_format
    from qa_lm.data.splits.registry import register_split
    from qa_lm.errors import UserError
    from qa_lm.inference.answerer import Answerer
    from qa_lm.modeling.module import CausalLMModule

__version__ = "0.1.0"
__all__ = [
    "Answerer",
    "CausalLMModule",
    "PairsDataModule",
    "Run",
    "TrainConfig",
    "UserError",
    "__version__",
    "compose",
    "register_format",
    "register_split",
    "train",
]

_MODULES = {
    "Answerer": "inference.answerer",
    "CausalLMModule": "modeling.module",
    "PairsDataModule": "data.batches.datamodule",
    "Run": "api.run",
    "TrainConfig": "config.schema",
    "UserError": "errors",
    "compose": "config.overrides",
    "register_format": "data.readers.formats",
    "register_split": "data.splits.registry",
    "train": "api.train",
}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module 'qa_lm' has no attribute {name!r}")
    found = getattr(importlib.import_module(f"qa_lm.{_MODULES[name]}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
