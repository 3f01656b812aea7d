"""Messages before and after training: data, model, estimates, and what did not run."""

import lightning.pytorch as pl
from lightning.pytorch.profilers import PassThroughProfiler, Profiler

from qa_lm.config.enums import FinetuneMethod, PromptKind
from qa_lm.config.schema import TrainConfig
from qa_lm.config.trainer_arguments import shards_model
from qa_lm.data.batches.batching import PackedRows
from qa_lm.data.prepare import PreparedData
from qa_lm.data.quality.checks import summary
from qa_lm.errors import sanitize
from qa_lm.modeling.causal_lm import parameter_count
from qa_lm.modeling.optimizers import optimizer_name
from qa_lm.training.build import Task
from qa_lm.training.estimate import Estimate
from qa_lm.training.finetune.start import PretrainedStart
from qa_lm.training.finetune.trimmed import trim_line
from qa_lm.training.trainer import TrainerSetup

WITHOUT_VALIDATION = "no best checkpoint is kept, nothing stops training early, and model/ holds the last weights"


def announce(
    config: TrainConfig,
    prepared: PreparedData,
    task: Task,
    trainer: pl.Trainer,
    precision: str,
    start: PretrainedStart | None = None,
) -> None:
    """Print the data, the model, the training settings, and what the Trainer's arguments rule out."""
    announce_data(config, prepared, task, several=trainer.world_size > 1)
    announce_model(config, task, precision, start)
    if trainer.world_size > 1:
        print(_processes(config, trainer))
    announce_limits(trainer, task.no_validation_reason)


def _processes(config: TrainConfig, trainer: pl.Trainer) -> str:
    nodes = f" on {trainer.num_nodes} nodes" if trainer.num_nodes > 1 else ""
    holds = "a part of the model" if shards_model(config.trainer) else "the whole model"
    rows = (config.data.batch_size or 0) * trainer.world_size
    return f"processes: {trainer.world_size}{nodes}, each holds {holds}; together they train {rows:,} rows per step"


def announce_data(config: TrainConfig, prepared: PreparedData, task: Task, several: bool = False) -> None:
    """Print the number of pairs, problems with them, and the packing."""
    counts = prepared.report.counts
    test = f", {counts['test']:,} for testing" if counts["test"] else ""
    held_out = f" and {counts['validation']:,} held out for validation" if counts["validation"] else ", none held out"
    print(f"data: {prepared.name}, {counts['pairs']:,} pairs, {counts['train']:,} for training{held_out}{test}")
    for name, columns in prepared.report.sources.items():
        if columns != "question = question, answer = answer":
            print(sanitize(f"columns of {name}: {columns}"))
    size = f"vocabulary of {len(prepared.tokenizer):,} tokens"
    print(
        f"tokenizer: {config.tokenizer.kind}, {trim_line(prepared.trim, task.module.model) if prepared.trim else size}"
    )
    for line in summary(prepared.report):
        print(sanitize(line))
    rows = task.data.train_rows
    if isinstance(rows, PackedRows):
        print(
            f"packing: {rows.rows:,} {'rows' if rows.rows != 1 else 'row'} of {config.data.row_tokens} tokens, "
            f"{rows.fill:.1%} full, {config.data.batch_size} per step{' and process' if several else ''}"
        )
    if rewritten := task.data.train_collate.rewritten:
        print(f"augmentation: each epoch rewrites {rewritten.rewriter.share:.0%} of the training questions")


def announce_model(config: TrainConfig, task: Task, precision: str, start: PretrainedStart | None = None) -> None:
    """Print the size of the model and how it will be trained."""
    model, optimizer = config.model, config.optimizer
    size = parameter_count(task.module.model) / 1e6
    origin = f"pretrained ({start.base.name})" if start else "from scratch"
    print(
        f"model: {task.module.model.config.model_type} {origin}, {size:,.1f} million parameters "
        f"(width {model.hidden_size}, {model.layers} {'layers' if model.layers != 1 else 'layer'}), seed {config.seed}"
    )
    if start:
        print(_finetuning(config, task, start))
        if config.data.template is PromptKind.plain and start.has_chat_template:
            print("prompt: plain; this model has a chat template too: data.template=chat")
        if config.tokenizer.trim is not None and config.stop_at_recall is None:
            print(
                "note: with tokenizer.trim the model knows little of what it was not trained on; goal=recall suits it"
            )
    schedule = f"{optimizer.schedule.value} learning rate {optimizer.lr:g}"
    print(f"training: {optimizer_name(task.module.make_optimizer)}, {schedule}; {precision}", flush=True)


def _finetuning(config: TrainConfig, task: Task, start: PretrainedStart) -> str:
    if start.method is FinetuneMethod.full:
        return f"finetuning: all parameters ({start.reason})"
    trained, lora = parameter_count(task.module.model, trained=True) / 1e6, config.finetune
    kind = "DoRA" if lora.dora else "LoRA"
    return f"finetuning: {kind} of rank {lora.rank}, {trained:,.1f} million parameters trained ({start.reason})"


def announce_limits(trainer: pl.Trainer, no_validation_reason: str | None) -> None:
    """Print what the Trainer's arguments rule out."""
    if trainer.fast_dev_run:  # type: ignore[attr-defined]
        print(
            "note: trainer.fast_dev_run runs only a few batches: no best checkpoint is kept, and nothing is written "
            "for TensorBoard"
        )
    if no_validation_reason:
        print(f"warning: {no_validation_reason}: no validation will run, so {WITHOUT_VALIDATION}", flush=True)


def announce_end(setup: TrainerSetup, to_train: int, never_trained: int, no_validation_reason: str | None) -> None:
    """Print what a run that ended before its time did not reach, and where its profile is."""
    if never_trained == to_train:
        print("warning: nothing was trained, because no training step was run; model/ holds the initial random weights")
    elif never_trained:
        print(
            f"note: {never_trained:,} of the {to_train:,} training pairs were never in a training step; they do not "
            "count as trained and are not evaluated"
        )
    if not setup.record.validations and not no_validation_reason and never_trained < to_train:
        print(f"warning: training ended before the first validation, so {WITHOUT_VALIDATION}")
    profiler = setup.trainer.profiler  # type: ignore[attr-defined]
    if isinstance(profiler, Profiler) and not isinstance(profiler, PassThroughProfiler):
        print(f"profile: {profiler.dirpath}")


def announce_estimate(config: TrainConfig, estimate: Estimate) -> None:
    """Print how long training will take, how much memory it needs, and whether the model is compiled."""
    print(f"torch.compile: {estimate.compilation}")
    until = " until recall is reached" if config.stop_at_recall is not None else ""
    at_most = "" if until else "at most "
    seconds = f"{estimate.seconds:,.0f} s" if estimate.seconds >= 1 else "under 1 s"
    epochs = f"{_figures(estimate.epochs)} epochs of {_figures(estimate.epoch_seconds)} s{until}"
    memory = f"{estimate.memory / 1e9:.2f} GB of memory"
    print(f"estimated: {at_most}{seconds} of training ({epochs}), {memory}", flush=True)


def _figures(number: float) -> str:
    """Format an integer from 10 on, and two significant digits below."""
    return f"{number:,.0f}" if number >= 10 else f"{number:.2g}"
