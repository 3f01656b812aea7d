"""Build the batches, the model, the optimizer and the schedule of a run, within the limits of the Trainer."""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import lightning.pytorch as pl
import torch
from transformers import PreTrainedModel

from qa_lm.config.enums import FinetuneMethod, LossWeighting, TrainOn
from qa_lm.config.schema import OptimizerConfig, TrainConfig
from qa_lm.config.trainer_arguments import shards_model
from qa_lm.data.batches.datamodule import PairsDataModule
from qa_lm.data.prepare import PreparedData
from qa_lm.errors import UserError, first_line
from qa_lm.modeling.causal_lm import build_causal_lm, check_packing, parameter_count
from qa_lm.modeling.custom_model import check_custom_model, register_model
from qa_lm.modeling.lora import add_lora
from qa_lm.modeling.module import CausalLMModule
from qa_lm.modeling.optimizers import OptimizerSettings
from qa_lm.modeling.schedules import Schedule
from qa_lm.training.callbacks.recall_stopping import RecallStopping
from qa_lm.training.custom import CustomParts, ModelSource
from qa_lm.training.finetune.recipe import EPOCHS_TO_RECALL
from qa_lm.training.finetune.start import PretrainedStart, load_start, lora_settings
from qa_lm.training.finetune.trimmed import check_adapter
from qa_lm.training.hardware import check_memory, device_of, process_count
from qa_lm.training.recipe import epochs_to_recall

if TYPE_CHECKING:
    from peft import PeftModel

OPTIMIZER_DEFAULTS = ("betas", "eps", "weight_decay", "decay_vectors", "momentum")
"""Settings for which null means the optimizer's own default."""
NOTHING_CUSTOM = CustomParts()
DEFAULT_EPOCHS = 1000
"""Epochs if trainer.max_epochs is not set."""


@dataclass(frozen=True)
class Task:
    """The module to train and its data."""

    data: PairsDataModule
    module: CausalLMModule
    schedule_epochs: float
    """Epochs of the learning rate schedule."""
    steps_per_epoch: int
    """Optimizer steps per epoch."""
    estimated_epochs: float
    """Estimated epochs of training: until recall is reached, or the maximum."""
    adapter: "PeftModel | None"
    """The LoRA adapter of the model; None if all parameters are trained."""
    no_validation_reason: str | None
    """The setting because of which no validation will run; None if one will."""


def build_task(
    config: TrainConfig,
    prepared: PreparedData,
    trainer: pl.Trainer,
    custom: CustomParts = NOTHING_CUSTOM,
    start: PretrainedStart | None = None,
) -> Task:
    """Build data module and module from settings without open (null) values; see `qa_lm.training.recipe.completed`."""
    datamodule = build_data(config, prepared, custom)
    processes = trainer.world_size
    all_batches = datamodule.batches(processes)
    check_limits(trainer, *all_batches)
    batches = limited(trainer.limit_train_batches, all_batches[0])
    datamodule.limit_recall_sample(batches, processes)
    steps_per_epoch = max(1, math.ceil(batches / trainer.accumulate_grad_batches))
    max_epochs = epochs_at_most(trainer, steps_per_epoch)
    epochs = min(max_epochs, config.optimizer.schedule_epochs or max_epochs)
    if start:
        network, adapter = _pretrained_network(config, start, prepared)
    else:
        network, adapter = _network(config, len(prepared.tokenizer), prepared.tokenizer.eos_id, custom.model), None
    module = CausalLMModule(
        network,
        custom.optimizer or optimizer_settings(config.optimizer, config),
        schedule_of(config.optimizer, round(epochs * steps_per_epoch)),
        mean_per_pair=config.loss_weighting is LossWeighting.pair,
        answer_bytes=prepared.answer_bytes(
            datamodule.validated(limited(trainer.limit_val_batches, all_batches[1]), processes)
        ),
        loss=custom.loss,
    )
    estimated = estimated_epochs(config, prepared, steps_per_epoch, epochs, max_epochs)
    no_validation_reason = why_no_validation(trainer, batches, max_epochs)
    return Task(datamodule, module, epochs, steps_per_epoch, estimated, adapter, no_validation_reason)


def build_data(config: TrainConfig, prepared: PreparedData, custom: CustomParts = NOTHING_CUSTOM) -> PairsDataModule:
    """Build the batches from settings without open (null) values."""
    data = config.data
    assert data.batch_size is not None
    return (custom.datamodule or PairsDataModule)(
        examples=prepared.examples,
        split=prepared.split,
        batch_size=data.batch_size,
        shuffle=data.shuffle and not config.trainer.get("overfit_batches"),
        seed=config.seed,
        train_on_question=data.train_on is TrainOn.all,
        row_tokens=data.row_tokens if data.packing else None,
        recall_pairs=config.evaluation.recall_pairs,
        workers=data.workers,
        rewritten=prepared.rewritten_prompts(config.seed, data.augment, config.model.context),
    )


def estimated_epochs(
    config: TrainConfig, prepared: PreparedData, steps_per_epoch: int, epochs: float, max_epochs: float
) -> float:
    """Return the number of epochs until recall is reached, or of the schedule."""
    if config.stop_at_recall is None:
        return epochs
    if config.model.path is not None:
        held = RecallStopping.required_validations(steps_per_epoch, pretrained=True) - 1
        return min(max_epochs, EPOCHS_TO_RECALL + held)
    sizes = prepared.sizes()
    tokens = int(sizes.lengths.sum())
    to_recall = epochs_to_recall(sizes.answer, sizes.paraphrases, tokens, steps_per_epoch)
    to_recall += RecallStopping.required_validations(steps_per_epoch) - RecallStopping.VALIDATIONS
    return min(max_epochs, to_recall, epochs + RecallStopping.allowed_validations(steps_per_epoch))


def epochs_at_most(trainer: pl.Trainer, steps_per_epoch: int) -> float:
    """Return the maximum number of epochs under the limits of the Trainer."""
    epochs: float = DEFAULT_EPOCHS if trainer.max_epochs is None or trainer.max_epochs < 0 else trainer.max_epochs
    if trainer.max_steps >= 0:
        epochs = min(epochs, trainer.max_steps / steps_per_epoch)
    return epochs


def schedule_of(optimizer: OptimizerConfig, steps: int) -> Schedule:
    """Return the schedule of the settings, which ends after this number of optimizer steps."""
    return Schedule(optimizer.schedule.value, steps, optimizer.warmup_steps, optimizer.final_lr)


def optimizer_settings(optimizer: OptimizerConfig, config: TrainConfig) -> OptimizerSettings:
    """Convert the settings of a built-in optimizer to plain values."""
    assert optimizer.lr is not None
    given = {name: getattr(optimizer, name) for name in OPTIMIZER_DEFAULTS}
    if optimizer.betas:
        given["betas"] = tuple(optimizer.betas)
    return OptimizerSettings(
        lr=optimizer.lr,
        kind=optimizer.kind.value,
        **{name: value for name, value in given.items() if value is not None},
        # By the precision of the run, which is measured once and saved: a resumed run must compute in the same one.
        dtype="bfloat16" if str(config.trainer.get("precision")).startswith("bf16") else "float32",
    )


def _pretrained_network(
    config: TrainConfig, start: PretrainedStart, prepared: PreparedData
) -> tuple[PreTrainedModel, "PeftModel | None"]:
    """The pretrained model and, with LoRA, its adapter."""
    lora = start.method is FinetuneMethod.lora
    trained = 0 if lora else start.parameters
    check_memory(config, start.parameters, device_of(config.trainer), trained, _shards(config))
    network = _with_gradient_checkpointing(load_start(start, config, prepared), config)
    # Right before the adapter is initialised, so that it depends only on the seed.
    pl.seed_everything(config.seed, workers=True, verbose=False)
    if not lora:
        return network, None
    adapter = add_lora(network, lora_settings(config.finetune))
    check_adapter(network, prepared)
    return network, adapter


def network_builder(
    config: TrainConfig, vocab_size: int, eos_id: int, custom: ModelSource | None = None
) -> Callable[[], PreTrainedModel]:
    """Return a function that builds the model of the settings, with weights from torch's global generator."""
    model = config.model
    assert model.architecture
    assert model.hidden_size
    assert model.layers
    assert model.heads
    assert model.context
    build: Callable[[], PreTrainedModel] = functools.partial(
        build_causal_lm,
        architecture=register_model(custom) if isinstance(custom, type) else model.architecture,
        vocab_size=vocab_size,
        hidden_size=model.hidden_size,
        layers=model.layers,
        heads=model.heads,
        context=model.context,
        dropout=model.dropout,
        eos_id=eos_id,
        extra=model.extra,
    )
    if custom is not None and not isinstance(custom, type):
        return functools.partial(custom, vocab_size=vocab_size, context=model.context, eos_id=eos_id)
    return build


def _network(config: TrainConfig, vocab_size: int, eos_id: int, custom: ModelSource | None = None) -> PreTrainedModel:
    build = network_builder(config, vocab_size, eos_id, custom)
    if custom is None or isinstance(custom, type):
        with torch.device("meta"):  # shapes without memory
            parameters = parameter_count(build())
        check_memory(config, parameters, device_of(config.trainer), shards=_shards(config))
    # Right before the weights are initialised, so that they depend only on the seed.
    pl.seed_everything(config.seed, workers=True, verbose=False)
    network = build()
    if custom is not None:
        network = check_custom_model(network, vocab_size, config.data.packing)
    elif config.data.packing:
        check_packing(network, f"model.architecture={config.model.architecture}")
    return _with_gradient_checkpointing(network, config)


def _shards(config: TrainConfig) -> int:
    return process_count(config.trainer) if shards_model(config.trainer) else 1


def _with_gradient_checkpointing(network: PreTrainedModel, config: TrainConfig) -> PreTrainedModel:
    if config.model.gradient_checkpointing:
        try:
            network.gradient_checkpointing_enable({"use_reentrant": False})
        except ValueError as error:
            raise UserError(f"model.gradient_checkpointing=true: {first_line(error)}") from None
    return network


Limit = int | float


def limited(limit: Limit, batches: int) -> int:
    """Return the number of batches under a limit such as `trainer.limit_train_batches`: an integer, or a share."""
    return min(batches, limit) if isinstance(limit, int) else int(batches * limit)


def check_limits(trainer: pl.Trainer, train_batches: int, validation_batches: int) -> None:
    """Refuse limits above 0 that leave no batch, and validations that would never run.

    Args:
        trainer: the Trainer of the run.
        train_batches: batches of an epoch without a limit.
        validation_batches: batches of a validation without a limit.

    Raises:
        UserError: Lightning would refuse the limit, but only after the start of the run.
    """
    for name, batches in (("limit_train_batches", train_batches), ("limit_val_batches", validation_batches)):
        limit = getattr(trainer, name)
        if limit > 0 and batches and limited(limit, batches) == 0:
            raise UserError(
                f"trainer.{name}={limit}: less than 1 of {batches:,} batches; give a whole number, such as 1"
            )
    interval, batches = trainer.val_check_interval, limited(trainer.limit_train_batches, train_batches)
    if trainer.check_val_every_n_epoch is not None and isinstance(interval, int) and interval > batches > 0:
        raise UserError(
            f"trainer.val_check_interval={interval}: an epoch has only {batches:,} batches; to count batches over "
            "epochs add trainer.check_val_every_n_epoch=null",
            "trainer.val_check_interval",
        )


def why_no_validation(trainer: pl.Trainer, train_batches: int, epochs: float) -> str | None:
    """Return the setting because of which no validation will run; None if one will run, as far as is known.

    Args:
        trainer: the Trainer of the run.
        train_batches: batches of an epoch, under its limit.
        epochs: maximum number of epochs.
    """
    if trainer.limit_val_batches == 0:
        return "trainer.limit_val_batches=0"
    total, every, interval = train_batches * epochs, trainer.check_val_every_n_epoch, trainer.val_check_interval
    if not isinstance(interval, int | float):  # a duration
        return None
    batches = interval if isinstance(interval, int) else int(train_batches * interval)
    first = batches if every is None else (every - 1) * train_batches + max(batches, 1)
    if total >= first or total == 0:  # a run without training steps prints a warning at its end
        return None
    if 0 <= trainer.max_steps < train_batches:
        return f"trainer.max_steps={trainer.max_steps}"
    if every is not None and every > epochs:
        return f"trainer.check_val_every_n_epoch={every}"
    return f"trainer.val_check_interval={interval}"
