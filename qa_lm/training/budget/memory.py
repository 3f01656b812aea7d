"""Choose the rows of a batch so that a run fits `budget.memory`. An optimizer step has as many rows as without it."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import psutil

from qa_lm.config.budget.settings import bytes_of
from qa_lm.config.schema import TrainConfig
from qa_lm.config.trainer_arguments import shards_model
from qa_lm.data.batches.rewritten import room_per_pair
from qa_lm.data.prepare import PreparedData
from qa_lm.errors import UserError
from qa_lm.training.build import optimizer_settings
from qa_lm.training.custom import CustomParts
from qa_lm.training.estimate import END_BYTES
from qa_lm.training.finetune.start import PretrainedStart
from qa_lm.training.hardware import device_of, process_count
from qa_lm.training.plan.devices import CONTEXT
from qa_lm.training.plan.formulas import Strategy, memory
from qa_lm.training.plan.prepare import network_without_memory
from qa_lm.training.plan.work import head_bytes, work_of

MARGIN = 0.05
"""Share of the memory that stays free: runs took up to 2% more than expected."""


@dataclass(frozen=True)
class Batches:
    """How the rows of an optimizer step are trained."""

    rows: int
    """Rows of a batch."""
    micro_batches: int
    """Batches of a step, whose gradients are added up."""
    row_tokens: int
    """Positions of a row."""

    @property
    def step_rows(self) -> int:
        """Rows of a step."""
        return self.rows * self.micro_batches


def within_memory(
    config: TrainConfig,
    given: TrainConfig,
    prepared: PreparedData,
    custom: CustomParts,
    start: PretrainedStart | None,
    verbose: bool,
) -> tuple[TrainConfig, PreparedData]:
    """Return settings and pairs with batches that fit `budget.memory`. What was given stays.

    Args:
        config: settings without open (null) values.
        given: the settings as they were given.
        prepared: the pairs.
        custom: your own parts.
        start: the pretrained model; None from scratch.
        verbose: whether to say what was chosen.

    Raises:
        UserError: nothing fits; names the least that would.
    """
    assert config.budget.memory is not None
    limit = bytes_of(config.budget.memory)
    now = _now(config, prepared)
    found = [now]
    if given.data.batch_size is None:
        steps_open = given.trainer.get("accumulate_grad_batches") is None
        found += smaller_batches(now, steps_open)
        shortest = prepared.sizes().longest + room_per_pair(config.data.augment)
        if given.data.row_tokens is None and config.data.packing and shortest < now.row_tokens:
            # As many positions in a step.
            same = max(1, round(now.step_rows * now.row_tokens / shortest))
            found += smaller_batches(Batches(same, 1, shortest), steps_open)
    peaks = expected_peaks(config, prepared, custom, start, found)
    fitting = next((each for each, peak in zip(found, peaks, strict=True) if peak <= (1 - MARGIN) * limit), None)
    if fitting is None:
        raise _too_small(config, found[-1], peaks[-1], is_given=len(found) == 1 and now.rows > 1)
    if verbose:
        peak = peaks[found.index(fitting)]
        print(f"budget: {_described(fitting, now)}; expected peak {peak / 1e9:.2f} GB of {config.budget.memory}")
    if fitting == now:
        return config, prepared
    data = replace(config.data, batch_size=fitting.rows)
    trainer = config.trainer
    if fitting.micro_batches > 1:
        trainer = trainer | {"accumulate_grad_batches": fitting.micro_batches}
    if fitting.row_tokens != now.row_tokens:
        data, prepared = replace(data, row_tokens=fitting.row_tokens), replace(prepared, row_tokens=fitting.row_tokens)
    return replace(config, data=data, trainer=trainer), prepared


def _now(config: TrainConfig, prepared: PreparedData) -> Batches:
    assert config.data.batch_size is not None
    row = config.data.row_tokens if config.data.packing else prepared.sizes().longest
    return Batches(config.data.batch_size, config.trainer.get("accumulate_grad_batches") or 1, row or 1)


def smaller_batches(now: Batches, steps_open: bool) -> Iterator[Batches]:
    """Yield smaller batches, largest first. Where the number of batches of a step is open, a step keeps its rows: first
    come those that divide them, except where one of them would be less than half as large.

    Args:
        now: the batches without a budget.
        steps_open: whether the number of batches of a step may be chosen.
    """
    if not steps_open:
        for rows in range(now.rows - 1, 0, -1):
            yield replace(now, rows=rows)
        return
    for parts in range(2, now.rows + 1):
        exact = next((each for each in range(parts, min(2 * parts, now.rows + 1)) if now.rows % each == 0), parts)
        yield replace(now, rows=-(-now.rows // exact), micro_batches=now.micro_batches * exact)


def expected_peaks(
    config: TrainConfig,
    prepared: PreparedData,
    custom: CustomParts,
    start: PretrainedStart | None,
    found: list[Batches],
) -> list[float]:
    """Return the expected peak memory of a process for each choice of batches, bytes; docs/plan.md has the formulas."""
    precision, processes = str(config.trainer["precision"]), process_count(config.trainer)
    on_cpu = device_of(config.trainer).type == "cpu"
    network = network_without_memory(config, prepared, custom, start, on_cpu)
    heads = [head_bytes(network, precision, each.rows * each.row_tokens, on_cpu) for each in found]
    first = found[0]
    optimizer = custom.optimizer or optimizer_settings(config.optimizer, config)
    work = work_of(network, optimizer, precision, first.rows, first.row_tokens, first.row_tokens, on_cpu)
    one = Strategy.one if processes == 1 else Strategy.ddp
    strategy = Strategy.fsdp2 if shards_model(config.trainer) else one
    program = float(psutil.Process().memory_info().rss) + END_BYTES if on_cpu else CONTEXT
    best = (work.gradients + work.state) / (processes if strategy is Strategy.fsdp2 else 1)
    peaks = []
    for each, head in zip(found, heads, strict=True):
        rows = each.rows * each.row_tokens / first.row_tokens  # activations grow with the positions
        peaks.append(memory(replace(work, head=head), strategy, processes, rows, program).total + best)
    return peaks


def warn_about_peak(config: TrainConfig, measured: int) -> None:
    """Print a note if measured steps need more memory than the budget.

    Args:
        config: all settings.
        measured: expected peak from measured steps, bytes.
    """
    limit = config.budget.memory
    if limit is not None and measured > bytes_of(limit):
        print(
            f"note: measured steps need more than expected: a peak of {measured / 1e9:.2f} GB, above "
            f"budget.memory={limit}; a smaller data.batch_size needs less",
            flush=True,
        )


def _described(chosen: Batches, now: Batches) -> str:
    if chosen == now:
        return f"data.batch_size={now.rows} fits"
    text = f"chosen data.batch_size={chosen.rows}"
    if chosen.micro_batches > 1:
        text += f", trainer.accumulate_grad_batches={chosen.micro_batches}"
    if chosen.row_tokens != now.row_tokens:
        text += f", data.row_tokens={chosen.row_tokens}"
    before = f"{now.step_rows} of {now.row_tokens}" if chosen.row_tokens != now.row_tokens else f"{now.step_rows}"
    same = "as without a budget" if chosen.step_rows == now.step_rows else f"instead of {before}"
    return f"{text} ({chosen.step_rows} rows a step, {same})"


def _too_small(config: TrainConfig, least: Batches, peak: float, is_given: bool) -> UserError:
    rows = f"{least.rows} {'rows' if least.rows > 1 else 'row'} of {least.row_tokens} tokens a batch"
    ways = ["a smaller model"]
    if not config.model.gradient_checkpointing:
        ways.insert(0, "model.gradient_checkpointing=true")
    if is_given:
        ways.insert(0, "data.batch_size=1")
    needed = peak / (1 - MARGIN) / 1e6
    return UserError(
        f"budget.memory={config.budget.memory}: at least {needed:,.0f}MB are needed, with {rows}; use "
        f"{', '.join(ways)} or more memory",
        "budget.memory",
    )
