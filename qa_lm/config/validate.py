"""Checks beyond types: numbers out of range, and settings that contradict each other."""

import difflib
from dataclasses import replace

from qa_lm.config.budget.settings import check_budget
from qa_lm.config.enums import FSDP2, MODEL_AS_ENCODER, Mode, OptimizerKind, PromptKind, ScheduleKind
from qa_lm.config.schema import DataConfig, OptimizerConfig, TokenizerConfig, TrainConfig
from qa_lm.config.targets import check_targets
from qa_lm.config.trainer_arguments import shards_model
from qa_lm.errors import UserError
from qa_lm.templates import check_templates

MONITORS = {"val/loss": Mode.min, "val/exact_match": Mode.max, "train/recall": Mode.max}
HOLDS_OUT_PHRASINGS = ("phrasing", "phrasing_and_fact")
"""Values of `data.split` that hold out phrasings of trained facts."""
TOKENIZER_KINDS = ("gpt2", "bpe", "folder", "hub", "model")


def check_values(config: TrainConfig) -> None:
    """Refuse an invalid configuration.

    Raises:
        UserError: a value is invalid; the message begins with the key.
    """
    data, model = config.data, config.model
    _require(0 <= config.seed < 2**32, "seed", config.seed, "must be from 0 to 4294967295")
    _check_monitor(config)
    check_targets(config)
    check_budget(config.budget)
    check_sources(data, config.tokenizer)
    for key, value in {
        "data.batch_size": data.batch_size,
        "model.hidden_size": model.hidden_size,
        "model.layers": model.layers,
        "model.heads": model.heads,
        "early_stopping.patience": config.early_stopping.patience,
        "optimizer.schedule_epochs": config.optimizer.schedule_epochs,
        "evaluation.batch_size": config.evaluation.batch_size,
        "checkpoint.every_steps": config.checkpoint.every_steps,
        "distributed.timeout_seconds": config.distributed.timeout_seconds,
        "evaluation.max_new_tokens": config.evaluation.max_new_tokens,
    }.items():
        _require(value is None or value >= 1, key, value, "must be at least 1")
    for key, count in {
        "evaluation.max_pairs": config.evaluation.max_pairs,
        "evaluation.recall_pairs": config.evaluation.recall_pairs,
        "data.workers": data.workers,
    }.items():
        _require(count >= 0, key, count, "must be 0 or more")
    seconds = config.checkpoint.every_seconds
    _require(seconds is None or seconds >= 0, "checkpoint.every_seconds", seconds, "must be 0 or more")
    _check_recall(config)
    _require(
        not config.compile or data.packing, "compile", config.compile, "needs data.packing=true: batches of one shape"
    )
    _require(
        not config.compile or not shards_model(config.trainer),
        "compile",
        config.compile,
        f"is not supported with trainer.strategy={FSDP2}",
    )
    _require(model.context is None or model.context >= 2, "model.context", model.context, "must be at least 2 tokens")
    _require(
        model.hidden_size is None or model.heads is None or model.hidden_size % model.heads == 0,
        "model.heads",
        model.heads,
        f"must divide model.hidden_size = {model.hidden_size}",
    )
    _require(0 <= model.dropout < 1, "model.dropout", model.dropout, "must be at least 0 and below 1")
    _check_optimizer(config.optimizer)
    _check_pretrained(config)


def _check_monitor(config: TrainConfig) -> None:
    """Check the direction of a built-in metric. Other metrics are logged by the user's callbacks, losses or models."""
    better = MONITORS.get(config.monitor)
    close = difflib.get_close_matches(config.monitor, MONITORS, 1, 0.8)
    hint = f"did you mean {close[0]}?" if close else ""
    _require(better is not None or not close, "monitor", config.monitor, hint)
    _require(
        better in (None, config.monitor_mode),
        "monitor_mode",
        config.monitor_mode.value,
        f"must be {better.value if better else ''} for {config.monitor}",
    )


def nothing_held_out(data: DataConfig) -> bool:
    """Whether all pairs are used for training and none for validation."""
    held_out_otherwise = data.split in HOLDS_OUT_PHRASINGS
    return data.train_fraction == 1 and data.validation_path is None and not held_out_otherwise


def without_validation(config: TrainConfig) -> TrainConfig:
    """Change the settings for a run without validation: monitor the recall of trained pairs, without early stopping.

    Raises:
        UserError: `evaluation.recall_pairs` is 0, so that no metric can select the best checkpoint.
    """
    _require(
        config.evaluation.recall_pairs > 0,
        "evaluation.recall_pairs",
        config.evaluation.recall_pairs,
        "must be at least 1 with data.train_fraction=1.0, where no pair is held out for validation",
    )
    early_stopping = replace(config.early_stopping, patience=None)
    return replace(config, monitor="train/recall", monitor_mode=Mode.max, early_stopping=early_stopping)


def check_sources(data: DataConfig, tokenizer: TokenizerConfig) -> None:
    """Refuse invalid settings of the pairs and the tokenizer.

    Raises:
        UserError: a value is invalid; the message begins with the key.
    """
    _check_data(data)
    _require(
        tokenizer.kind in TOKENIZER_KINDS,
        "tokenizer.kind",
        tokenizer.kind,
        f"must be one of {', '.join(TOKENIZER_KINDS)}",
    )
    _require(
        tokenizer.kind not in ("folder", "hub") or tokenizer.path is not None,
        "tokenizer.path",
        None,
        "give the folder that holds tokenizer.json, or the name on the hub",
    )
    _require(
        tokenizer.kind in ("folder", "hub") or tokenizer.path is None,
        "tokenizer.path",
        tokenizer.path,
        "has no effect here: choose tokenizer=folder or tokenizer=hub",
    )
    trim = tokenizer.trim
    _require(trim is None or trim >= 0, "tokenizer.trim", trim, "must be 0 or more merges")
    made = "has no effect on tokenizer=bpe, which is made from the training pairs: choose tokenizer.vocab_size"
    _require(trim is None or tokenizer.kind != "bpe", "tokenizer.trim", trim, made)
    chat = data.template is PromptKind.chat
    _require(
        not chat or tokenizer.kind in ("folder", "hub", "model"),
        "data.template",
        data.template.value,
        "needs a tokenizer with a chat template: choose model=pretrained, tokenizer=folder or tokenizer=hub",
    )
    _require(chat or data.system is None, "data.system", data.system, "has no effect here: choose data.template=chat")
    if tokenizer.kind == "bpe":
        _require(
            tokenizer.vocab_size is None or tokenizer.vocab_size >= 257,
            "tokenizer.vocab_size",
            tokenizer.vocab_size,
            "must be at least 257: every byte and EOS",
        )


def _check_pretrained(config: TrainConfig) -> None:
    model, finetune = config.model, config.finetune
    pretrained = model.path is not None
    unused = "has no effect here: it belongs to a pretrained model, model.path"
    _require(
        pretrained or finetune.method is None, "finetune.method", finetune.method and finetune.method.value, unused
    )
    _require(pretrained or model.revision is None, "model.revision", model.revision, unused)
    place = "name the pretrained model: a folder, a name on the hub or a GGUF file"
    _require(pretrained or model.architecture is not None, "model.path", None, place)
    _require(
        pretrained or config.evaluation.encoder != MODEL_AS_ENCODER,
        "evaluation.encoder",
        MODEL_AS_ENCODER,
        "needs a pretrained model: choose model=pretrained, or name a sentence encoder",
    )
    _require(
        not (pretrained and (model._target_ or model.extra)),
        "model.path",
        model.path,
        "needs no class and no arguments",
    )
    _require(pretrained or config.tokenizer.kind != "model", "tokenizer.kind", "model", "belongs to a pretrained model")
    _require(finetune.rank >= 1, "finetune.rank", finetune.rank, "must be at least 1")
    share = finetune.average
    _require(share is None or 0 < share <= 1, "finetune.average", share, "must be above 0 and at most 1")
    _require(pretrained or share == 1, "finetune.average", share, unused)
    linear = share in (None, 1) or not finetune.dora
    _require(linear, "finetune.average", share, "must be 1 with finetune.dora, whose effect is not linear")
    _require(finetune.alpha > 0, "finetune.alpha", finetune.alpha, "must be above 0")
    _require(0 <= finetune.dropout < 1, "finetune.dropout", finetune.dropout, "must be at least 0 and below 1")
    targets = finetune.target_modules
    names = [targets] if isinstance(targets, str) else targets
    text = isinstance(names, list) and len(names) > 0 and all(isinstance(each, str) and each for each in names)
    _require(text, "finetune.target_modules", targets, "must be all-linear or a list of names")


def _check_recall(config: TrainConfig) -> None:
    stop = config.stop_at_recall
    _require(stop is None or 0 < stop <= 1, "stop_at_recall", stop, "must be above 0 and at most 1")
    enabled = config.evaluation.recall_pairs > 0
    _require(stop is None or enabled, "stop_at_recall", stop, "needs evaluation.recall_pairs of at least 1")
    monitored = config.monitor == "train/recall"
    _require(not monitored or enabled, "monitor", config.monitor, "needs evaluation.recall_pairs of at least 1")


def _check_data(data: DataConfig) -> None:
    given = [f"data.{name}" for name in ("path", "hub") if getattr(data, name) is not None]
    if not given:
        raise UserError(
            "data.path: name the file of pairs, such as data.path=pairs.jsonl, or a data set of the hub: data.hub=NAME"
        )
    if len(given) > 1:
        raise UserError(f"{given[-1]}: cannot be combined with {' and '.join(given[:-1])}", given[-1])
    for name in ("path", "validation_path", "test_path"):
        value = getattr(data, name)
        names = value if isinstance(value, list) else [value]
        text = value is None or (len(names) > 0 and all(isinstance(each, str) and each for each in names))
        _require(text, f"data.{name}", value, "must be a file name, a glob, or a list of these")
    _require(0 < data.train_fraction <= 1, "data.train_fraction", data.train_fraction, "must be above 0 and at most 1")
    _require(0 <= data.augment <= 1, "data.augment", data.augment, "must be from 0 to 1")
    pairs = data.train_pairs
    _require(pairs is None or pairs >= 1, "data.train_pairs", pairs, "must be at least 1")
    _require(0 <= data.split_seed < 2**32, "data.split_seed", data.split_seed, "must be from 0 to 4294967295")
    _require(data.held_out_phrasings >= 1, "data.held_out_phrasings", data.held_out_phrasings, "must be at least 1")
    check_templates(data.prompt, data.completion)
    _require(data.unanswerable is None or bool(data.unanswerable.strip()), "data.unanswerable", "", "must not be empty")
    unused = "has no effect here: "
    by_phrasing = data.split in HOLDS_OUT_PHRASINGS
    for name, value, used, rule in (
        ("hub_subset", data.hub_subset, data.hub is not None, "it belongs to data.hub"),
        ("hub_split", data.hub_split, data.hub is not None or data.hub_split == "train", "it belongs to data.hub"),
        (
            "held_out_phrasings",
            data.held_out_phrasings,
            by_phrasing or data.held_out_phrasings == 1,
            "it belongs to data.split=phrasing or phrasing_and_fact",
        ),
    ):
        _require(value is None or used, f"data.{name}", value, unused + rule)
    row = data.row_tokens
    _require(row is None or row >= 2, "data.row_tokens", row, "must be at least 2 tokens")


def _check_optimizer(optimizer: OptimizerConfig) -> None:
    lr = optimizer.lr
    _require(lr is None or 0 < lr < 10, "optimizer.lr", lr, "must be above 0 and below 10")
    betas = optimizer.betas
    _require(betas is None or len(betas) == 2, "optimizer.betas", betas, "must be two numbers")
    in_range = all(0 <= beta < 1 for beta in betas or ())
    _require(in_range, "optimizer.betas", betas, "must each be at least 0 and below 1")
    _require(optimizer.eps is None or optimizer.eps > 0, "optimizer.eps", optimizer.eps, "must be above 0")
    decay = optimizer.weight_decay
    _require(decay is None or decay >= 0, "optimizer.weight_decay", decay, "must be 0 or more")
    _require(optimizer.warmup_steps >= 0, "optimizer.warmup_steps", optimizer.warmup_steps, "must be 0 or more")
    for name in ("momentum", "final_lr"):
        share = getattr(optimizer, name)
        _require(share is None or 0 <= share <= 1, f"optimizer.{name}", share, "must be from 0 to 1")
    constant = optimizer.schedule is ScheduleKind.constant
    epochs = optimizer.schedule_epochs
    _require(
        epochs is None or not constant,
        "optimizer.schedule_epochs",
        epochs,
        "has no effect here: optimizer.schedule is constant",
    )

    _require(
        not optimizer.decay_vectors or optimizer.kind is OptimizerKind.adamw,
        "optimizer.decay_vectors",
        optimizer.decay_vectors,
        "has no effect here: it belongs to optimizer.kind=adamw",
    )


def _require(holds: bool, key: str, value: object, rule: str) -> None:
    if not holds:
        raise UserError(f"{key}={'null' if value is None else value}: {rule}", key)
