"""Identify equal jobs, so that a sweep that is started again skips or resumes them."""

import json
import sys
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from qa_lm.config.budget.settings import BudgetConfig
from qa_lm.config.compose import resolved_yaml, typed_config
from qa_lm.config.schema import DataConfig
from qa_lm.config.targets import import_trusted
from qa_lm.config.validate import check_values
from qa_lm.run.manifest import sha256_of

if TYPE_CHECKING:
    from qa_lm.data.readers.reading import Source

KNOWN_TO_LIGHTNING = {"max_epochs", "num_sanity_val_steps", "precision", "accelerator", "devices", "strategy"}
"""Trainer arguments that need no check by Lightning, whose import takes four seconds."""


def job_identity(composed: DictConfig) -> str:
    """Combine the resolved settings of a run and the sha256 of its data files into a text that identifies the run.

    A data set of the hub is identified by its name. A reader or a split of the user's own is identified by the file
    that defines it, because it decides what the data is.

    Raises:
        UserError: the settings are invalid, or files do not exist.
    """
    config = typed_config(composed)
    check_values(config)
    import_trusted(config.trust)  # it may register formats of files
    if not config.trainer.keys() <= KNOWN_TO_LIGHTNING:
        from qa_lm.config.trainer_arguments import check_trainer_arguments

        check_trainer_arguments(config.trainer)
    # These do not change what is computed; a budget chooses other settings, which the run keeps when it is resumed.
    config.resume, config.loggers, config.name, config.tags = None, {}, None, []
    config.budget = BudgetConfig()
    return resolved_yaml(config) + json.dumps(_data_keys(config.data))


def _data_keys(data: DataConfig) -> list[str | None]:
    from qa_lm.data.readers.files import data_suffix  # imported late: a single run does not need it
    from qa_lm.data.readers.formats import READERS
    from qa_lm.data.readers.reading import file_sources
    from qa_lm.data.splits.registry import BUILT_IN, SPLITS, check_split

    sources = [] if data.path is None else file_sources(data.path, "data.path")
    sources += file_sources(data.validation_path, "data.validation_path") if data.validation_path else []
    sources += file_sources(data.test_path, "data.test_path") if data.test_path else []
    read_by_own = [source.path for source in sources if source.path and not source.is_cacheable]
    own: list[object] = [READERS[data_suffix(path)] for path in read_by_own]
    if data.split not in BUILT_IN:
        check_split(data.split)
        own.append(SPLITS[data.split])
    return [*(_content_key(source, _modified(source.path)) for source in sources), *map(_code_key, own)]


def _code_key(function: object) -> str | None:
    """sha256 of the file that defines a function; None if there is none, as in a notebook."""
    file = getattr(sys.modules.get(getattr(function, "__module__", "")), "__file__", None)
    return sha256_of(Path(file)) if file else None


@cache  # jobs of a sweep usually share their data
def _content_key(source: "Source", modified: int) -> str | None:
    return source.content_key()


def _modified(path: Path | None) -> int:
    return path.stat().st_mtime_ns if path is not None and path.is_file() else 0
