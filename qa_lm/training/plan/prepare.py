"""`plan_run`: from the settings of a run to a plan. The pairs are read and encoded; nothing is trained or written."""

import math
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import lightning.pytorch as pl
import psutil
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from qa_lm.batch import Batch
from qa_lm.config.enums import FinetuneMethod
from qa_lm.config.schema import TrainConfig
from qa_lm.config.validate import nothing_held_out, without_validation
from qa_lm.data.prepare import PreparedData, prepare
from qa_lm.data.vocabulary.rows import keep_rows
from qa_lm.errors import UserError
from qa_lm.modeling.lora import add_lora
from qa_lm.training.attention import set_attention_for_training
from qa_lm.training.build import (
    build_data,
    build_task,
    epochs_at_most,
    estimated_epochs,
    network_builder,
    optimizer_settings,
)
from qa_lm.training.custom import CustomParts, with_targets
from qa_lm.training.estimate import END_BYTES, STEPS, first_batches
from qa_lm.training.finetune.start import PretrainedStart, find_start, lora_settings, with_start
from qa_lm.training.hardware import choose_precision, device_of, free_memory
from qa_lm.training.plan.devices import HERE, Device, kind
from qa_lm.training.plan.formulas import Speed, Strategy, memory
from qa_lm.training.plan.measure import Measured, measure, product_flops, this_machine
from qa_lm.training.plan.rows import Epoch, PlanRow, plan_rows
from qa_lm.training.plan.work import Work, work_of
from qa_lm.training.recipe import completed
from qa_lm.training.trainer import build_trainer


@dataclass(frozen=True)
class Request:
    """What to plan for. Sizes are bytes, operations and bytes per second; None keeps the figure of the kind."""

    device: str = HERE
    """A name in `KINDS`, or this machine's device."""
    devices: int = 1024
    """Largest number of devices."""
    mfu: float = 0.4
    """Share of the peak that training reaches."""
    memory: float | None = None
    peak: float | None = None
    """Operations per second of dense products in the precision of the run."""
    node_bandwidth: float | None = None
    network_bandwidth: float | None = None
    per_node: int | None = None
    """Devices of a node."""


@dataclass(frozen=True)
class Plan:
    """A plan, with what it assumes."""

    rows: Sequence[PlanRow]
    work: Work
    epoch: Epoch
    device: Device
    model: str
    """Architecture and start of the model."""
    data: str
    """Name of the pairs."""
    pairs: int
    """Number of training pairs."""
    precision: str
    peak: float | None
    """Peak operations per second that times were computed from; None if steps were measured."""
    given_peak: bool
    """Whether that is your own figure."""
    mfu: float
    measured: Measured | None

    @property
    def best_state(self) -> int:
        """Bytes of the copy of the best weights and optimizer state, which a run keeps if there is room."""
        return self.work.gradients + self.work.state

    @property
    def expected_peak(self) -> float:
        """Bytes of memory at the peak of a run on one device, with that copy and, on a CPU, its end."""
        return self.rows[0].memory.total + self.best_state + (END_BYTES if self.device.shared_memory else 0)


def plan_run(config: TrainConfig, request: Request) -> Plan:
    """Plan a run.

    Args:
        config: all settings, as for `train`. Its strategy and its numbers of devices and nodes are not used.
        request: the devices.

    Raises:
        UserError: the settings or the data are invalid, or the kind of device is unknown.
    """
    here = request.device == HERE
    known = None if here else kind(request.device)
    config = _one_process(config, here)
    if nothing_held_out(config.data) and config.monitor.startswith("val/"):
        config = without_validation(config)
    custom = with_targets(CustomParts(), config)
    given = config.trainer.get("precision")
    precision = choose_precision(config.trainer).name if here else str(given or "bf16-mixed")
    start = find_start(config)
    config = with_start(config, start) if start else config
    prepared = prepare(config.data, start.tokenizer if start else config.tokenizer, config.model.context)
    config = completed(config, prepared.sizes())
    config = replace(config, trainer={**config.trainer, "precision": precision})
    with tempfile.TemporaryDirectory() as folder:  # nothing is written there
        trainer = build_trainer(config, Path(folder), prepared, custom).trainer
    data = build_data(config, prepared, custom)
    batches = first_batches(data, torch.device("cpu"), STEPS + 1)
    on_cpu = here and device_of(config.trainer).type == "cpu"
    network = network_without_memory(config, prepared, custom, start, on_cpu)
    work = _work(config, custom, network, batches, on_cpu)
    tokens = int(data.examples.lengths(data.split.train).sum())
    rows = data.train_rows
    limit = trainer.limit_train_batches
    epoch = Epoch(rows.rows, rows.batch_size, tokens, 1.0, work.micro_batches, limit)
    epoch = replace(epoch, epochs=_epochs(config, prepared, trainer, epoch.steps(1)))
    device = _device(known or _here(config), request)
    measured = None
    needed = memory(work, Strategy.one, 1, work.rows).total
    if here and request.peak is None and needed <= free_memory(device_of(config.trainer)):
        task = build_task(config, prepared, trainer, custom, start)
        measured = measure(task, config, epoch)
    peak = None if measured else _peak(device, precision, request, config)
    speeds = measured.speeds if measured else (Speed(flops=request.mfu * (peak or 1.0)),) * 2
    return Plan(
        rows=plan_rows(work, epoch, device, speeds, request.devices),
        work=work,
        epoch=epoch,
        device=device,
        model=_described(network, start),
        data=prepared.name,
        pairs=len(data.split.train),
        precision=precision,
        peak=peak,
        given_peak=request.peak is not None,
        mfu=request.mfu,
        measured=measured,
    )


def _one_process(config: TrainConfig, here: bool) -> TrainConfig:
    """The settings for a process on one device, without loggers; for other devices that of a CPU, where it need not
    exist."""
    accelerator = config.trainer.get("accelerator")
    if (
        here
        and accelerator in ("gpu", "cuda")
        and not torch.cuda.is_available()
        and device_of(config.trainer).type == "cpu"
    ):
        key = "trainer.accelerator"
        raise UserError(f"{key}={accelerator}: this machine has none; name the devices: --device h100", key)
    one = {"devices": 1, "num_nodes": 1, "strategy": "auto"}
    place = {} if here else {"accelerator": "cpu"}
    return replace(config, loggers={}, trainer={**config.trainer, **one, **place})


def _here(config: TrainConfig) -> Device:
    return this_machine(device_of(config.trainer), float(psutil.Process().memory_info().rss))


def _device(known: Device, request: Request) -> Device:
    """The kind of device, with the figures that were given."""
    names = ("memory", "node_bandwidth", "network_bandwidth", "per_node")
    given = {name: value for name in names if (value := getattr(request, name)) is not None}
    return replace(known, **given)


def _peak(device: Device, precision: str, request: Request, config: TrainConfig) -> float:
    """Peak operations per second in a precision.

    Raises:
        UserError: there is no figure.
    """
    if request.peak is not None:
        return request.peak
    if request.device == HERE:
        return product_flops(device_of(config.trainer), precision)
    if precision == "64-true":
        raise UserError("trainer.precision=64-true: no figure for this kind of device; give --tflops", "--tflops")
    return device.bfloat16 if precision.startswith("bf16") else device.float32


def network_without_memory(
    config: TrainConfig, prepared: PreparedData, custom: CustomParts, start: PretrainedStart | None, on_cpu: bool
) -> PreTrainedModel:
    """The model of the run on the meta device, with its adapter and its kind of attention."""
    with torch.device("meta"):
        if start:
            own = AutoConfig.from_pretrained(start.base.folder, local_files_only=True, trust_remote_code=False)
            half = str(config.trainer["precision"]) == "bf16-true"
            network = AutoModelForCausalLM.from_config(own, dtype=torch.bfloat16 if half else torch.float32)
            if prepared.trim:
                keep_rows(network, prepared.trim.old_ids)
            if start.method is FinetuneMethod.lora:
                add_lora(network, lora_settings(config.finetune))
        else:
            network = network_builder(config, len(prepared.tokenizer), prepared.tokenizer.eos_id, custom.model)()
    if start and config.model.gradient_checkpointing:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # transformers is about to rename it
            network.gradient_checkpointing_enable({"use_reentrant": False})
    set_attention_for_training(network, config, on_cpu)
    return network


def _work(
    config: TrainConfig, custom: CustomParts, network: PreTrainedModel, batches: Sequence[Batch], on_cpu: bool
) -> Work:
    shapes = [tuple(batch.inputs.shape) for batch in batches]
    return work_of(
        network,
        custom.optimizer or optimizer_settings(config.optimizer, config),
        str(config.trainer["precision"]),
        rows=max(rows for rows, _ in shapes),
        longest=max(columns for _, columns in shapes),
        row_tokens=math.fsum(rows * columns for rows, columns in shapes) / sum(rows for rows, _ in shapes),
        on_cpu=on_cpu,
        micro_batches=config.trainer.get("accumulate_grad_batches", 1),
    )


def _epochs(config: TrainConfig, prepared: PreparedData, trainer: pl.Trainer, steps: int) -> float:
    """The epochs of a run on one device: until recall is reached, or the maximum."""
    most = epochs_at_most(trainer, steps)
    return estimated_epochs(config, prepared, steps, min(most, config.optimizer.schedule_epochs or most), most)


def _described(network: PreTrainedModel, start: PretrainedStart | None) -> str:
    kind_of_model = str(network.config.model_type)
    if start is None:
        return f"{kind_of_model} from scratch"
    how = "all parameters" if start.method is FinetuneMethod.full else "LoRA"
    return f"{kind_of_model}, pretrained ({start.base.name}), {how}"
