"""One training run: configuration in, run folder and result out."""

import logging
import math
import sys
import time
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
import transformers
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint

from qa_lm.answering.evaluate import EvaluatedPair, evaluate_pairs, exact_match
from qa_lm.config import LossWeighting, TrainConfig, TrainOn, resolved_yaml
from qa_lm.data.datamodule import PairsDataModule
from qa_lm.data.encoding import PromptTemplate
from qa_lm.data.pairs import Pair, builtin_pairs, fingerprint, read_pairs
from qa_lm.data.splits import Split, shuffled_split
from qa_lm.data.tokenizer import TextTokenizer, gpt2_tokenizer, load_tokenizer, train_bpe
from qa_lm.errors import UserError
from qa_lm.modeling.causal_lm import build_causal_lm, parameter_count
from qa_lm.modeling.module import CausalLMModule
from qa_lm.modeling.optimizers import adamw
from qa_lm.training import run_folder
from qa_lm.training.callbacks import ConsoleReport, EpochRecord, EventsLogger, RunningLossBar
from qa_lm.training.checkpoints import DirectCheckpointIO, best_checkpoint, last_checkpoint
from qa_lm.training.environment import describe_environment
from qa_lm.training.export import export_model
from qa_lm.training.hyperparameters import flat_hyperparameters
from qa_lm.training.trainer_arguments import check_trainer_arguments


@dataclass(frozen=True)
class TrainingResult:
    """What a run came to."""

    folder: Path
    """The run folder."""
    metrics: dict[str, Any]
    """The content of metrics.json."""
    answers: list[EvaluatedPair]
    """The content of answers.jsonl."""
    objective: float
    """Best value of `monitor`, which a sweep optimises; nan if there was no validation."""


@dataclass(frozen=True)
class _Parts:
    """What a run is made of, before training."""

    pairs: list[Pair]
    split: Split
    tokenizer: TextTokenizer
    template: PromptTemplate
    data: PairsDataModule
    module: CausalLMModule


@dataclass(frozen=True)
class _Loop:
    """The Trainer and the callbacks that are read after training."""

    trainer: pl.Trainer
    record: EpochRecord
    early_stopping: EarlyStopping | None
    best: ModelCheckpoint
    last: ModelCheckpoint


def train(config: TrainConfig, folder: Path) -> TrainingResult:
    """Train, keep the best model, ask it the questions, and fill the run folder.

    Args:
        config: all settings.
        folder: the run folder; made if it is not there.

    Raises:
        UserError: the settings or the data are wrong; nothing has been written then.
    """
    _quiet_lightning()
    started = time.perf_counter()
    check_trainer_arguments(config.trainer)
    if (folder / run_folder.CONFIG).exists():
        raise UserError(
            f"{folder}: already holds a run, which would be lost; choose another folder with hydra.run.dir=FOLDER"
        )
    loop = _loop(config, folder)
    parts = _parts(config)

    folder.mkdir(parents=True, exist_ok=True)
    run_folder.write_text(folder / run_folder.CONFIG, resolved_yaml(config))
    environment = describe_environment(fingerprint(parts.pairs), config.seed)
    run_folder.write_json(folder / run_folder.ENVIRONMENT, environment)

    loop.trainer.fit(parts.module, datamodule=parts.data)
    _restore_best(parts.module, loop)
    export_model(parts.module.model, parts.tokenizer, parts.template, folder / run_folder.MODEL)
    answers = _answers(config, parts)
    run_folder.write_jsonl(folder / run_folder.ANSWERS, [asdict(answer) for answer in answers])
    metrics = _metrics(config, parts, loop, answers, time.perf_counter() - started)
    run_folder.write_json(folder / run_folder.METRICS, metrics)
    _log_end(config, loop, metrics, answers)
    best = loop.best.best_model_score
    return TrainingResult(folder, metrics, answers, math.nan if best is None else float(best))


def _parts(config: TrainConfig) -> _Parts:
    data = config.data
    if data.builtin is not None:
        name, pairs = data.builtin, builtin_pairs(data.builtin)
    else:
        assert data.path is not None
        name, pairs = data.path, read_pairs(Path(data.path))
    split = shuffled_split(pairs, data.train_fraction, data.split_seed)
    template = PromptTemplate()
    tokenizer = _tokenizer(config, split, template)
    datamodule = PairsDataModule(
        split=split,
        tokenizer=tokenizer,
        template=template,
        context=config.model.context,
        batch_size=data.batch_size,
        shuffle=data.shuffle,
        seed=config.seed,
        train_on_question=data.train_on is TrainOn.all,
    )
    module = _module(config, tokenizer)
    _announce(config, name, split, tokenizer, module)
    return _Parts(pairs, split, tokenizer, template, datamodule, module)


def _announce(config: TrainConfig, name: str, split: Split, tokenizer: TextTokenizer, module: CausalLMModule) -> None:
    train_pairs, held_out = len(split.train), len(split.validation)
    size = parameter_count(module.model) / 1e6
    print(f"data: {name}, {train_pairs + held_out:,} pairs, {train_pairs:,} to train and {held_out:,} to validate")
    print(f"tokenizer: {config.tokenizer.kind}, {len(tokenizer):,} entries")
    print(
        f"model: {config.model.architecture} from scratch, {size:,.1f} million parameters, seed {config.seed}",
        flush=True,
    )


def _tokenizer(config: TrainConfig, split: Split, template: PromptTemplate) -> TextTokenizer:
    if config.tokenizer.kind == "gpt2":
        return gpt2_tokenizer()
    if config.tokenizer.kind == "folder":
        assert config.tokenizer.path is not None
        return load_tokenizer(Path(config.tokenizer.path))
    assert config.tokenizer.vocab_size is not None
    texts = (
        text
        for pair in split.train
        for text in (template.prompt_text(pair.question), template.answer_text(pair.answer))
    )
    return train_bpe(texts, config.tokenizer.vocab_size)


def _module(config: TrainConfig, tokenizer: TextTokenizer) -> CausalLMModule:
    model, optimizer = config.model, config.optimizer
    # Right before the weights are drawn: they depend on the seed and on nothing that was done before.
    pl.seed_everything(config.seed, workers=True, verbose=False)
    network = build_causal_lm(
        architecture=model.architecture,
        vocab_size=len(tokenizer),
        hidden_size=model.hidden_size,
        layers=model.layers,
        heads=model.heads,
        context=model.context,
        dropout=model.dropout,
        eos_id=tokenizer.eos_id,
        extra=model.extra,
    )
    return CausalLMModule(
        network,
        lambda trained: adamw(
            trained.parameters(), optimizer.lr, optimizer.betas, optimizer.eps, optimizer.weight_decay
        ),
        mean_per_pair=config.loss_weighting is LossWeighting.pair,
    )


def _loop(config: TrainConfig, folder: Path) -> _Loop:
    best = best_checkpoint(folder / run_folder.CHECKPOINTS, config.monitor, config.monitor_mode.value)
    last = last_checkpoint(folder / run_folder.CHECKPOINTS)
    record = EpochRecord(folder / run_folder.METRICS_BY_EPOCH, config.trainer.get("log_every_n_steps") or 50)
    early_stopping = None
    if config.early_stopping.patience is not None:
        early_stopping = EarlyStopping(
            monitor=config.monitor,
            patience=config.early_stopping.patience,
            min_delta=config.early_stopping.min_delta,
            mode=config.monitor_mode.value,
            check_on_train_epoch_end=False,
        )
    callbacks: list[Callback] = [
        record,
        *([early_stopping] if early_stopping else []),
        ConsoleReport(record, early_stopping, best),
    ]
    arguments = dict(config.trainer)
    # Redirected output gets a line per epoch instead of a bar.
    if arguments.setdefault("enable_progress_bar", sys.stdout.isatty()):
        callbacks.append(RunningLossBar())
    arguments["logger"] = EventsLogger(folder) if arguments.get("logger", True) else False
    arguments.setdefault("enable_model_summary", False)
    # Left at None, the setting of an earlier Trainer in this process would stay in force.
    arguments.setdefault("deterministic", False)
    try:
        trainer = pl.Trainer(callbacks=[*callbacks, best, last], plugins=[DirectCheckpointIO()], **arguments)
    except (MisconfigurationException, ValueError, TypeError) as error:
        raise UserError(f"trainer: {str(error).strip().splitlines()[0]}") from None
    return _Loop(trainer, record, early_stopping, best, last)


def _restore_best(module: CausalLMModule, loop: _Loop) -> None:
    """Put the best weights into the module; without a validation the last ones stay."""
    path = loop.best.best_model_path
    if not path:
        return
    checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    if checkpoint["global_step"] != loop.trainer.global_step:
        module.load_state_dict(checkpoint["state_dict"])


def _answers(config: TrainConfig, parts: _Parts) -> list[EvaluatedPair]:
    evaluation = config.evaluation
    answers = []
    for name, pairs, examples in (
        ("train", parts.split.train, parts.data.train_examples),
        ("validation", parts.split.validation, parts.data.validation_examples),
    ):
        answers += evaluate_pairs(
            parts.module.model,
            parts.tokenizer,
            parts.template,
            pairs[: evaluation.max_pairs],
            examples[: evaluation.max_pairs],
            split=name,
            batch_size=evaluation.batch_size,
            max_new_tokens=evaluation.max_new_tokens,
        )
    return answers


def _metrics(
    config: TrainConfig, parts: _Parts, loop: _Loop, answers: list[EvaluatedPair], seconds: float
) -> dict[str, Any]:
    rows, best_score = loop.record.rows, loop.best.best_model_score
    column = config.monitor.replace("/", "_")
    best_row = next(
        (row for row in rows if best_score is not None and row[column] == float(best_score)), rows[-1] if rows else None
    )
    stopping = loop.early_stopping
    return {
        "best_epoch": best_row and best_row["epoch"],
        "best_val_loss": best_row and best_row["val_loss"],
        "final_train_loss": rows[-1]["train_loss"] if rows else None,
        "final_val_loss": rows[-1]["val_loss"] if rows else None,
        "stopped_early": stopping is not None and stopping.stopped_epoch > 0,
        "epochs_run": len(rows),
        "steps": loop.trainer.global_step,
        "recall": exact_match([answer for answer in answers if answer.split == "train"]),
        "val_exact_match": exact_match([answer for answer in answers if answer.split == "validation"]),
        "pairs_trained": len(parts.split.train),
        "pairs_validation": len(parts.split.validation),
        "parameters": parameter_count(parts.module.model),
        "seed": config.seed,
        "seconds": seconds,
        "train_seconds": loop.record.train_seconds,
        "tokens_per_second": loop.record.train_tokens / loop.record.train_seconds
        if loop.record.train_seconds
        else None,
    }


def _log_end(config: TrainConfig, loop: _Loop, metrics: dict[str, Any], answers: list[EvaluatedPair]) -> None:
    """The HParams row and sample answers, for TensorBoard."""
    logger = loop.trainer.logger
    if not isinstance(logger, EventsLogger):
        return
    ends = {"end/val_loss": "final_val_loss", "end/best_val_loss": "best_val_loss", "end/recall": "recall"}
    values = {tag: math.nan if metrics[name] is None else metrics[name] for tag, name in ends.items()}
    logger.log_hyperparams(flat_hyperparameters(config), values, step=loop.trainer.global_step)
    lines = [f"| {_cell(a.question)} | {_cell(a.generated)} | {_cell(a.answer)} | {a.split} |" for a in answers[:20]]
    table = "\n".join(["| question | generated | answer | split |", "|---|---|---|---|", *lines])
    logger.experiment.add_text("answers", table, loop.trainer.global_step)
    logger.close()


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def _quiet_lightning() -> None:
    """Silence what Lightning says about hardware and its other products; warnings of substance stay."""
    transformers.utils.logging.disable_progress_bar()
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in (
        ".*does not have many workers.*",
        ".*exists and is not empty.*",
        ".*is smaller than the logging interval.*",
        ".*treespec, LeafSpec.*",
    ):
        warnings.filterwarnings("ignore", message=message)
