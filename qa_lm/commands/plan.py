"""Plan a run without training: `python scripts/plan.py [--device h100] [--devices N] [group=choice] [key=value]`.

Prints, for 1, 2, 4, ... devices, how they would share the work, the memory of each, tokens per second and hours. The
settings are those of train.py. Nothing is trained, and no run folder is created. docs/plan.md has the formulas.
"""

import argparse
from typing import TYPE_CHECKING

from qa_lm.commands.exit_codes import exit_code
from qa_lm.errors import UserError, sanitize

if TYPE_CHECKING:
    from qa_lm.training.plan.prepare import Request

MOST_DEVICES = 1_048_576
POSITIVE = ("memory", "tflops", "node_bandwidth", "network_bandwidth", "per_node")


def main(arguments: list[str] | None = None) -> int:
    """Plan and print. Returns the exit code."""
    options, settings = _parser().parse_known_args(arguments)
    return exit_code(lambda: _plan(options, settings))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Say what a run would need on 1 to 1,024 devices, without training.",
        epilog="All other arguments are settings, as for train.py.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--device",
        default="here",
        metavar="KIND",
        help="kind of device: a100, h100, h200, l4, rtx4090, or here (default): this machine, whose steps are measured",
    )
    parser.add_argument("--devices", type=int, default=1024, metavar="N", help="plan up to N devices (default 1024)")
    parser.add_argument(
        "--mfu", type=float, default=0.4, metavar="SHARE", help="share of the peak that is reached (default 0.4)"
    )
    parser.add_argument("--memory", type=float, metavar="GB", help="memory of a device")
    parser.add_argument("--tflops", type=float, metavar="TFLOP/S", help="peak of dense products in this precision")
    parser.add_argument("--node-bandwidth", type=float, metavar="GB/S", help="bandwidth of a device within its node")
    parser.add_argument("--network-bandwidth", type=float, metavar="GB/S", help="bandwidth of a node to other nodes")
    parser.add_argument("--per-node", type=int, metavar="N", help="devices of a node")
    parser.add_argument("--config-dir", metavar="FOLDER", help="folder of your own settings files")
    return parser


def _plan(options: argparse.Namespace, settings: list[str]) -> None:
    _check(options, settings)
    # Imported late, so that mistakes are reported at once.
    from qa_lm.training.plan.devices import HERE, kind

    if options.device != HERE:
        kind(options.device)
    from qa_lm.config.overrides import compose
    from qa_lm.training.early_checks import check_early

    config = compose(*settings, config_dir=options.config_dir)
    check_early(config)
    from qa_lm.quick_start import without_garbage_collection

    with without_garbage_collection():
        from qa_lm.training.hardware import tune_allocator
        from qa_lm.training.plan.prepare import plan_run
        from qa_lm.training.plan.table import plan_text
        from qa_lm.training.trainer import quiet_lightning

    quiet_lightning()
    tune_allocator({})
    print(sanitize(plan_text(plan_run(config, _request(options)))))


def _check(options: argparse.Namespace, settings: list[str]) -> None:
    """Refuse values that are out of range, and what does not belong to a plan.

    Raises:
        UserError: names the option.
    """
    for word in settings:
        if word in ("-m", "--multirun"):
            raise UserError(f"{word}: a plan is of one run, not of a sweep; plan each job by itself")
        if word.startswith("-"):
            raise UserError(f"{word}: no such option; --help lists them, and settings have no dashes")
        if word.lstrip("+~").startswith("resume="):
            raise UserError(f"{word}: a plan is of a new run; leave it out")
    if not 0 < options.mfu <= 1:
        raise UserError(f"--mfu {options.mfu:g}: must be above 0 and at most 1")
    if not 1 <= options.devices <= MOST_DEVICES:
        raise UserError(f"--devices {options.devices}: must be from 1 to {MOST_DEVICES:,}")
    for name in POSITIVE:
        value = getattr(options, name)
        if value is not None and not 0 < value < float("inf"):
            raise UserError(f"--{name.replace('_', '-')} {value:g}: must be above 0")


def _request(options: argparse.Namespace) -> "Request":
    from qa_lm.training.plan.prepare import Request

    def scaled(value: float | None, unit: float) -> float | None:
        return None if value is None else value * unit

    return Request(
        device=options.device,
        devices=options.devices,
        mfu=options.mfu,
        memory=scaled(options.memory, 1e9),
        peak=scaled(options.tflops, 1e12),
        node_bandwidth=scaled(options.node_bandwidth, 1e9),
        network_bandwidth=scaled(options.network_bandwidth, 1e9),
        per_node=options.per_node,
    )
