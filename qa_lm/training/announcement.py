"""What a run says of itself before it trains, and of what it did not come to."""

import lightning.pytorch as pl
from lightning.pytorch.profilers import PassThroughProfiler, Profiler

from qa_lm.config.schema import TrainConfig
from qa_lm.data.batches.batching import PackedRows
from qa_lm.data.prepare import PreparedData
from qa_lm.data.quality.checks import summary
from qa_lm.errors import sanitize
from qa_lm.modeling.causal_lm import parameter_count
from qa_lm.modeling.optimizers import optimizer_name
from qa_lm.training.build import Parts
from qa_lm.training.estimate import Expectation
from qa_lm.training.trainer import Loop

WITHOUT_VALIDATION = "there is no best checkpoint, nothing stops training early, and model/ holds the last weights"


def announce(config: TrainConfig, prepared: PreparedData, parts: Parts, trainer: pl.Trainer, precision: str) -> None:
    """Print the pairs, the model, how it will be trained, and what the Trainer's arguments rule out."""
    announce_data(config, prepared, parts)
    announce_model(config, parts, precision)
    announce_limits(trainer, parts.no_validation)


def announce_data(config: TrainConfig, prepared: PreparedData, parts: Parts) -> None:
    """The pairs, what is wrong with them, and how they are packed."""
    counts = prepared.report.counts
    test = f", {counts['test']:,} to test" if counts["test"] else ""
    held_out = f" and {counts['validation']:,} held out for validation" if counts["validation"] else ", none held out"
    print(f"data: {prepared.name}, {counts['pairs']:,} pairs, {counts['train']:,} for training{held_out}{test}")
    for name, columns in prepared.report.sources.items():
        if columns != "question = question, answer = answer":
            print(sanitize(f"columns of {name}: {columns}"))
    print(f"tokenizer: {config.tokenizer.kind}, {len(prepared.tokenizer):,} entries")
    for line in summary(prepared.report):
        print(sanitize(line))
    rows = parts.data.train_rows
    if isinstance(rows, PackedRows):
        print(
            f"packing: {rows.rows:,} rows of {config.data.row_tokens} tokens, {rows.fill:.1%} full, "
            f"{config.data.batch_size} a step"
        )


def announce_model(config: TrainConfig, parts: Parts, precision: str) -> None:
    """Its size, and how it will be trained."""
    model, optimizer = config.model, config.optimizer
    size = parameter_count(parts.module.model) / 1e6
    print(
        f"model: {parts.module.model.config.model_type} from scratch, {size:,.1f} million parameters "
        f"(width {model.hidden_size}, {model.layers} {'layers' if model.layers != 1 else 'layer'}), seed {config.seed}"
    )
    schedule = f"{optimizer.schedule.value} learning rate {optimizer.lr:g}"
    print(f"training: {optimizer_name(parts.module.make_optimizer)}, {schedule}; precision {precision}", flush=True)


def announce_limits(trainer: pl.Trainer, no_validation: str | None) -> None:
    """What the Trainer's arguments rule out."""
    if trainer.fast_dev_run:  # type: ignore[attr-defined]
        print(
            "note: trainer.fast_dev_run is a trial of a few batches: no best checkpoint is kept, and nothing is "
            "written for TensorBoard"
        )
    if no_validation:
        print(f"warning: {no_validation}: no validation will run, so {WITHOUT_VALIDATION}", flush=True)


def announce_end(loop: Loop, to_train: int, never_trained: int, no_validation: str | None) -> None:
    """What a run that was cut short did not come to, and where its profile is."""
    if never_trained == to_train:
        print("warning: nothing was trained: no training step was made; model/ holds the weights as they were drawn")
    elif never_trained:
        print(
            f"note: {never_trained:,} of the {to_train:,} training pairs were never in a training step; they do not "
            "count as trained and are not asked"
        )
    if not loop.record.validations and not no_validation and never_trained < to_train:
        print(f"warning: training ended before the first validation, so {WITHOUT_VALIDATION}")
    profiler = loop.trainer.profiler  # type: ignore[attr-defined]
    if isinstance(profiler, Profiler) and not isinstance(profiler, PassThroughProfiler):
        print(f"profile: {profiler.dirpath}")


def announce_expectation(config: TrainConfig, expected: Expectation) -> None:
    """What training will take, and whether it is compiled."""
    print(f"compiled: {expected.compilation}")
    until = "until recall is reached" if config.stop_at_recall is not None else "at most"
    epochs = f"{_figures(expected.epochs)} epochs of {_figures(expected.epoch_seconds)} s"
    memory = f"{expected.memory / 1e9:.2f} GB of memory"
    print(f"expected: {expected.seconds:,.0f} s of training, {epochs} {until}; {memory}", flush=True)


def _figures(number: float) -> str:
    """Whole from 10 on, else two digits."""
    return f"{number:,.0f}" if number >= 10 else f"{number:.2g}"
