"""Load the pairs that a model is evaluated on: those of a run, with its split, or those of other files."""

import json
from dataclasses import replace
from itertools import islice
from pathlib import Path

from qa_lm.config.compose import read_config
from qa_lm.config.schema import DataConfig, TokenizerConfig, TrainConfig
from qa_lm.config.validate import check_sources
from qa_lm.data.encoding import PromptTemplate
from qa_lm.data.pairs import Pair
from qa_lm.data.prepare import PreparedData, cache_is_off, prepare
from qa_lm.data.readers.reading import PairReader
from qa_lm.data.sources import how_to_read, main_sources
from qa_lm.errors import UserError, reading
from qa_lm.run.run_folder import CHECKPOINTS, CONFIG, ENVIRONMENT, MODEL


def data_of_run(run: Path) -> PreparedData:
    """Load the pairs that a run was trained and validated on, with the same split.

    Raises:
        UserError: the folder is not a run folder, or its data files have changed since.
    """
    if not (run / CONFIG).is_file():
        raise UserError(f"{run}: not a run folder; name the pairs: data.path=FILE")
    config = read_config(run / CONFIG)
    check_sources(config.data, config.tokenizer)
    # The run may come from an untrusted source, so nothing is written into a folder that it names.
    data = config.data if cache_is_off(config.data) else replace(config.data, cache=None)
    prepared = prepare(data, _tokenizer_of(config, run), config.model.context)
    with reading(run / ENVIRONMENT, "data_sha256 cannot be read"):
        trained_on = json.loads((run / ENVIRONMENT).read_text(encoding="utf-8"))["data_sha256"]
    if trained_on != prepared.table.fingerprint:
        raise UserError(f"{prepared.name}: has changed since this run was trained; name the pairs: data.path=FILE")
    return prepared


def _tokenizer_of(config: TrainConfig, run: Path) -> TokenizerConfig:
    """The settings of a run's tokenizer; the tokenizer of a pretrained model is in the run folder."""
    if config.tokenizer.kind != "model":
        return config.tokenizer
    saved = next((each for each in (run / MODEL, run / CHECKPOINTS / MODEL) if each.is_dir()), run / MODEL)
    return TokenizerConfig(kind="folder", path=str(saved))


def pairs_of_files(data: DataConfig, max_pairs: int, template: PromptTemplate) -> list[Pair]:
    """Read pairs from files, without splitting them.

    Args:
        data: the files and how to read them.
        max_pairs: maximum number of pairs; the first ones are read.
        template: the template that names the columns.

    Raises:
        UserError: the files cannot be read, or contain no pairs.
    """
    if (data.path is None) == (data.hub is None):
        raise UserError("name the pairs by data.path or data.hub")
    sources = main_sources(data)
    reader = PairReader(sources, how_to_read(data, template))
    pairs = [pair for _, _, pair in islice(reader.pairs(), max_pairs)]
    if not pairs:
        raise UserError(f"{', '.join(source.name for source in sources)}: no pairs")
    return pairs
