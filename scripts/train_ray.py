"""Train one run with several workers of a Ray cluster: see `qa_lm.api.on_ray` and docs/distributed.md.

python scripts/train_ray.py FOLDER --workers N [--gpus-per-worker 1] [group=choice] [key=value]
"""

import argparse
import sys
from pathlib import Path

from qa_lm.commands.exit_codes import exit_code

NUMBERS = ("workers", "gpus_per_worker", "cpus_per_worker", "retries")


def main(arguments: list[str] | None = None) -> int:
    """Train. Returns the exit code."""
    return exit_code(lambda: _train(_parser().parse_intermixed_args(arguments)))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Train one run with several workers of a Ray cluster.")
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="the run folder; a run in it is resumed")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings, as for train.py")
    parser.add_argument("--workers", type=int, required=True, metavar="N", help="number of processes")
    parser.add_argument("--gpus-per-worker", type=int, default=0, metavar="N", help="0 (default) or 1")
    parser.add_argument("--cpus-per-worker", type=int, default=1, metavar="N", help="CPU cores (default 1)")
    parser.add_argument("--retries", type=int, default=3, metavar="N", help="times to start again (default 3)")
    parser.add_argument("--address", help="a Ray cluster (default: $RAY_ADDRESS, else this machine)")
    return parser


def _train(options: argparse.Namespace) -> None:
    from qa_lm.api.on_ray import train_on_ray
    from qa_lm.config.overrides import compose

    numbers = {name: getattr(options, name) for name in NUMBERS}
    train_on_ray(compose(*options.overrides), options.folder, **numbers, address=options.address)


if __name__ == "__main__":
    sys.exit(main())
