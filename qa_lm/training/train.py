"""One training run: configuration in, run folder and result out."""

import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl

from qa_lm.answering.evaluate import EvaluatedPair, evaluate_pairs, exact_match
from qa_lm.config import LossWeighting, TrainConfig, TrainOn, Weights
from qa_lm.config_composition import resolved_yaml
from qa_lm.config_values import check_values
from qa_lm.data.batching import PackedRows
from qa_lm.data.checks import summary
from qa_lm.data.datamodule import PairsDataModule
from qa_lm.data.splits import KINDS
from qa_lm.data.tokenizer import TextTokenizer
from qa_lm.errors import UserError
from qa_lm.modeling.causal_lm import build_causal_lm, parameter_count
from qa_lm.modeling.module import CausalLMModule
from qa_lm.modeling.optimizers import adamw
from qa_lm.training import run_folder
from qa_lm.training.environment import describe_environment
from qa_lm.training.export import export_model
from qa_lm.training.hyperparameters import flat_hyperparameters
from qa_lm.training.loop import Loop, build_loop, quiet_lightning, restore_best
from qa_lm.training.prepare import PreparedData, prepare
from qa_lm.training.split_file import write_split
from qa_lm.training.tensorboard import log_end
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

    prepared: PreparedData
    data: PairsDataModule
    module: CausalLMModule


def train(config: TrainConfig, folder: Path) -> TrainingResult:
    """Train, keep the best model, ask it the questions, and fill the run folder.

    Args:
        config: all settings.
        folder: the run folder; made if it is not there.

    Raises:
        UserError: the settings or the data are wrong; nothing has been written then.
        KeyboardInterrupt: Ctrl-C; `checkpoints/last.ckpt` holds what was trained so far.
    """
    quiet_lightning()
    started = time.perf_counter()
    check_values(config)
    check_trainer_arguments(config.trainer)
    if (folder / run_folder.CONFIG).exists():
        raise UserError(
            f"{folder}: already holds a run, which would be lost; choose another folder with hydra.run.dir=FOLDER"
        )
    loop = build_loop(config, folder)
    parts = _parts(config)

    folder.mkdir(parents=True, exist_ok=True)
    run_folder.write_text(folder / run_folder.CONFIG, resolved_yaml(config))
    prepared = parts.prepared
    environment = describe_environment(prepared.table.fingerprint, config.seed)
    run_folder.write_json(folder / run_folder.ENVIRONMENT, environment)
    run_folder.write_json(folder / run_folder.DATA_REPORT, prepared.report.as_dict())
    write_split(folder / run_folder.SPLIT, prepared.table, prepared.split)

    _fit(loop, parts)
    if config.export_weights is Weights.best:
        restore_best(parts.module, loop)
    export_model(parts.module.model, prepared.tokenizer, prepared.template, folder / run_folder.MODEL)
    answers = _answers(config, parts)
    run_folder.write_jsonl(folder / run_folder.ANSWERS, [asdict(answer) for answer in answers])
    metrics = _metrics(config, parts, loop, answers, time.perf_counter() - started)
    run_folder.write_json(folder / run_folder.METRICS, metrics)
    log_end(loop.trainer, flat_hyperparameters(config), metrics, answers)
    best = loop.best.best_model_score
    return TrainingResult(folder, metrics, answers, math.nan if best is None else float(best))


def _fit(loop: Loop, parts: _Parts) -> None:
    try:
        loop.trainer.fit(parts.module, datamodule=parts.data)
    except SystemExit:  # how Lightning ends on Ctrl-C, once it has saved last.ckpt
        if loop.trainer.interrupted:
            raise KeyboardInterrupt from None
        raise


def _parts(config: TrainConfig) -> _Parts:
    data = config.data
    prepared = prepare(data, config.tokenizer, config.model.context)
    datamodule = PairsDataModule(
        examples=prepared.examples,
        split=prepared.split,
        batch_size=data.batch_size,
        shuffle=data.shuffle,
        seed=config.seed,
        train_on_question=data.train_on is TrainOn.all,
        row_tokens=data.row_tokens if data.packing else None,
    )
    module = _module(config, prepared.tokenizer)
    _announce(config, prepared, datamodule, module)
    return _Parts(prepared, datamodule, module)


def _announce(config: TrainConfig, prepared: PreparedData, data: PairsDataModule, module: CausalLMModule) -> None:
    counts = prepared.report.counts
    test = f", {counts['test']:,} to test" if counts["test"] else ""
    print(
        f"data: {prepared.name}, {counts['pairs']:,} pairs, "
        f"{counts['train']:,} to train and {counts['validation']:,} to validate{test}"
    )
    for name, columns in prepared.report.sources.items():
        if columns != "question = question, answer = answer":
            print(f"columns of {name}: {columns}")
    print(f"tokenizer: {config.tokenizer.kind}, {len(prepared.tokenizer):,} entries")
    for line in summary(prepared.report):
        print(line)
    if isinstance(data.train_rows, PackedRows):
        rows = f"{len(data.train_rows):,} rows of {config.data.row_tokens} tokens"
        print(f"packing: {rows}, {data.train_rows.fill:.1%} full")
    size = parameter_count(module.model) / 1e6
    print(
        f"model: {config.model.architecture} from scratch, {size:,.1f} million parameters, seed {config.seed}",
        flush=True,
    )


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


def _answers(config: TrainConfig, parts: _Parts) -> list[EvaluatedPair]:
    evaluation, prepared = config.evaluation, parts.prepared
    split, answers = prepared.split, []
    reasons = {"validation": [KINDS[kind] for kind in split.held_out[: evaluation.max_pairs]]}
    for name, side in (("train", split.train), ("validation", split.validation), ("test", split.test)):
        asked = side[: evaluation.max_pairs]
        answers += evaluate_pairs(
            parts.module.model,
            prepared.tokenizer,
            prepared.template,
            prepared.table.pairs(asked),
            prepared.examples.examples(asked),
            split=name,
            held_out=reasons.get(name),
            batch_size=evaluation.batch_size,
            max_new_tokens=evaluation.max_new_tokens,
        )
    return answers


def _metrics(
    config: TrainConfig, parts: _Parts, loop: Loop, answers: list[EvaluatedPair], seconds: float
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
        "exported_weights": config.export_weights.value,
        "stopped_early": stopping is not None and stopping.stopped_epoch > 0,
        "epochs_run": len(rows),
        "steps": loop.trainer.global_step,
        "recall": exact_match([answer for answer in answers if answer.split == "train"]),
        "val_exact_match": exact_match([answer for answer in answers if answer.split == "validation"]),
        "test_exact_match": exact_match([answer for answer in answers if answer.split == "test"]),
        "exact_match_by_reason": {
            reason: exact_match([answer for answer in answers if answer.held_out == reason])
            for reason in KINDS
            if reason and any(answer.held_out == reason for answer in answers)
        },
        "pairs_trained": len(parts.prepared.split.train),
        "pairs_validation": len(parts.prepared.split.validation),
        "parameters": parameter_count(parts.module.model),
        "seed": config.seed,
        "seconds": seconds,
        "train_seconds": loop.record.train_seconds,
        "tokens_per_second": loop.record.train_tokens / loop.record.train_seconds
        if loop.record.train_seconds
        else None,
    }
