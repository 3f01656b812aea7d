"""Content of environment.json: what is needed to reproduce a run."""

import importlib.metadata
import platform
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

PACKAGES = (
    "torch",
    "lightning",
    "transformers",
    "tokenizers",
    "hydra-core",
    "omegaconf",
    "tensorboard",
    "safetensors",
    "pyarrow",
    "numpy",
)


def describe_environment(seed: int, fingerprints: dict[str, str]) -> dict[str, Any]:
    """Collect versions, machine, git commit, command line and seed.

    Args:
        seed: the seed of the run.
        fingerprints: sha256 of the training data, by name.
    """
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "seed": seed,
        **fingerprints,
        "git": _git_state(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
        "threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "gpus": [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())],
    }


def _git_state() -> dict[str, Any] | None:
    """The commit of the code that runs, and whether tracked files differ from it; None outside a git checkout."""

    def git(*arguments: str) -> str:
        folder = Path(__file__).resolve().parent
        return subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, encoding="utf-8", check=True, timeout=10
        ).stdout

    try:
        return {
            "commit": git("rev-parse", "HEAD").strip(),
            "changed": bool(git("status", "--porcelain", "--untracked-files=no").strip()),
        }
    except (OSError, subprocess.SubprocessError):
        return None
