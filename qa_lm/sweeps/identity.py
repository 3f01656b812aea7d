"""Which jobs are the same: a sweep that is started again skips or resumes those that it ran before."""

import json
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from qa_lm.config.compose import resolved_yaml, typed_config
from qa_lm.config.schema import DataConfig
from qa_lm.config.targets import import_trusted
from qa_lm.config.validate import check_values

if TYPE_CHECKING:
    from qa_lm.data.readers.reading import Source

KNOWN_TO_LIGHTNING = {"max_epochs", "num_sanity_val_steps", "precision", "accelerator", "devices", "strategy"}
"""Arguments of the Trainer that need no check by Lightning, whose import takes four seconds."""


def job_identity(composed: DictConfig) -> str:
    """The resolved settings of a run and the sha256 of its data files, as text; equal for equal runs.

    A data set of the hub has no file to look at: its name stands for it.

    Raises:
        UserError: the settings or the names of the files are wrong.
    """
    config = typed_config(composed)
    check_values(config)
    import_trusted(config.trust)  # it may register formats of files
    if not config.trainer.keys() <= KNOWN_TO_LIGHTNING:
        from qa_lm.config.trainer_arguments import check_trainer_arguments

        check_trainer_arguments(config.trainer)
    # These do not change what is computed.
    config.resume, config.loggers, config.name, config.tags = None, {}, None, []
    return resolved_yaml(config) + json.dumps(_data_keys(config.data))


def _data_keys(data: DataConfig) -> list[str | None]:
    from qa_lm.data.pairs import builtin_path  # imported late: a single run does not need them yet
    from qa_lm.data.readers.reading import Source, file_sources

    sources: list[Source] = []
    if data.builtin is not None:
        sources.append(Source(data.builtin, builtin_path(data.builtin)))
    elif data.hub is None:
        sources += file_sources(data.path, "data.path")
    sources += file_sources(data.validation_path, "data.validation_path") if data.validation_path else []
    sources += file_sources(data.test_path, "data.test_path") if data.test_path else []
    return [_content_key(each, _changed(each.path)) for each in sources]


@cache  # the jobs of a sweep mostly share their data
def _content_key(source: "Source", changed: int) -> str | None:
    return source.content_key()


def _changed(path: Path | None) -> int:
    return path.stat().st_mtime_ns if path is not None and path.is_file() else 0
