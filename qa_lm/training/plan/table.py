"""A plan as text of at most 100 columns."""

import textwrap

from qa_lm.training.plan.formulas import USABLE, Strategy
from qa_lm.training.plan.prepare import Plan
from qa_lm.training.plan.rows import PlanRow

SHORT_STEP = 0.02
"""Seconds of a computed step below which launching kernels, which is not part of the plan, takes long."""
WIDTH = 100
HEADER = (
    f"{'':23}memory of each device, GB",
    f"{'devices':>7}  {'strategy':<12} {'weights':>7} {'grads':>5} {'optim':>5} {'activ':>5} {'head':>5} {'other':>5} "
    f"{'total':>6} {'batch':>8} {'steps':>6} {'tokens/s':>10} {'hours':>6}",
)


def plan_text(plan: Plan) -> str:
    """Format a plan: what is trained, the table, and the assumptions."""
    work = plan.work
    trained = "" if work.trained == work.parameters else f", {_number(work.trained / 1e6)} trained"
    about = [
        f"{plan.data}: {plan.pairs:,} training pairs, {plan.epoch.tokens:,} tokens an epoch, "
        f"{_number(plan.epoch.epochs)} epochs",
        f"{plan.model}: {work.parameters / 1e6:,.1f} million parameters{trained}; {plan.precision}",
        f"on {plan.device.name}: {plan.device.memory / 1e9:,.0f} GB",
    ]
    return "\n".join([*about, "", *HEADER, *map(_line, plan.rows), "", *_assumptions(plan)])


def _line(row: PlanRow) -> str:
    memory = row.memory
    parts = (memory.weights, memory.gradients, memory.state, memory.activations, memory.head, memory.other)
    fits = row.strategy is not Strategy.none
    speed = (_number(row.tokens_per_second), _hours(row.hours)) if fits else ("-", "-")
    shown = " ".join(f"{_number(part / 1e9):>5}" for part in parts[1:])
    return (
        f"{row.devices:>7,}  {row.strategy.value:<12} {_number(parts[0] / 1e9):>7} {shown} "
        f"{_number(memory.total / 1e9):>6} {row.batch:>8,} {row.steps:>6,} {speed[0]:>10} {speed[1]:>6}"
    )


def _hours(value: float) -> str:
    return "<0.01" if value < 0.01 else f"{value:.2f}" if value < 10 else f"{value:,.0f}"


def _number(value: float) -> str:
    """Format a whole number or one from 100 on without decimals, and others with three figures."""
    if value == int(value):
        return f"{value:,.0f}"
    if value >= 100:
        return f"{value:,.0f}"
    digits = 1 if value >= 10 else 2 if value >= 1 else 3
    return f"{value:.{digits}f}"


def _assumptions(plan: Plan) -> list[str]:
    device, work, rows = plan.device, plan.work, plan.rows
    lines = [
        f"ddp: a whole replica on each device; fsdp2: weights, gradients and optimizer state divided; a strategy "
        f"fits if it takes at most {USABLE:.0%} of the memory.",
        "head: the logits of a chunk. other: the program and, with fsdp2, embeddings, head and two blocks that are "
        "whole at a time.",
        f"batch: rows of a step on all devices, {work.rows} per batch and device; a row has {work.row_tokens:,.0f} "
        f"positions. Steps are per epoch. A larger batch may need more epochs: the plan keeps {_epochs(plan)}.",
        _speed(plan),
    ]
    if len(rows) > 1:
        overlap = "overlap with products" if device.overlaps else "do not overlap with products"
        lines.append(
            f"Transfers {overlap}: {_rate(device.node_bandwidth)} within a node of {device.per_node}, "
            f"{_rate(device.network_bandwidth)} between nodes, of which {device.achieved:.0%} are reached."
        )
        waiting = [row for row in rows if row.strategy is not Strategy.none and row.waiting_seconds > 0]
        if waiting:
            worst = max(waiting, key=lambda row: row.waiting_seconds / row.step_seconds)
            share = worst.waiting_seconds / worst.step_seconds
            lines.append(f"Devices wait for transfers for up to {share:.0%} of a step (at {worst.devices:,} devices).")
    idle = next((row for row in rows if row.devices > plan.epoch.rows), None)
    if idle:
        lines.append(
            f"From {idle.devices:,} devices on some have nothing to do: an epoch has {plan.epoch.rows:,} "
            f"{'rows' if plan.epoch.rows > 1 else 'row'}."
        )
    lines.append(
        f"If there is room, a run also keeps a copy of its best state ({_number(plan.best_state / 1e9)} GB): one "
        f"device is then expected to peak at {_number(plan.expected_peak / 1e9)} GB."
    )
    lines.append("Hours are those of training steps, without validations, checkpoints and the answers at the end.")
    return [wrapped for line in lines for wrapped in _wrapped(line)]


def _epochs(plan: Plan) -> str:
    return f"{_number(plan.epoch.epochs)} epochs"


def _speed(plan: Plan) -> str:
    measured = plan.measured
    if measured:
        alone = f"a batch takes {_number(measured.alone)} s"
        if measured.together != measured.alone:
            alone += f" (torch.compile: {measured.compilation}), {_number(measured.together)} s in one of several"
        return f"Measured on this machine: {alone}. Several processes are taken to be as fast as one."
    assert plan.peak is not None
    text = f"Assumed: {plan.mfu:.0%} (--mfu) of {plan.peak / 1e12:,.3g} TFLOP/s in {plan.precision} are reached."
    if not plan.device.bfloat16 and not plan.given_peak:
        text += " This is the speed of products that was measured on this machine: the model does not fit its memory."
    if min(row.step_seconds for row in plan.rows) < SHORT_STEP:
        text += " Steps are so short that a GPU will not reach it: raise data.batch_size."
    return text


def _rate(bandwidth: float) -> str:
    return f"{bandwidth / 1e9:,.4g} GB/s"


def _wrapped(line: str) -> list[str]:
    return textwrap.wrap(line, WIDTH, subsequent_indent="  ")
