"""A stand-in for scripts/train.py, quick and without torch: counts its steps in its run folder and resumes from there.

`steps.txt` gets a line for each step done, `starts.txt` one for each process; `metrics.json` ends it.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from qa_lm.config.hydra_settings import register_sweep_settings
from qa_lm.sweeps.plugins import register_plugins


@dataclass
class Settings:
    lr: float = 0.1
    seed: int = 0
    steps: int = 2
    pause: float = 0.0
    """Seconds of a step."""
    mode: str = "well"
    """`well`, `raise`, `kill` (itself), `raise_once`, `hang_once`, `nan`, `deaf` to signals, `orphan` (leaves a process
    behind), `crash`, `exit`, `say` (exits with a text), `leave` (without Python's ending), `tell` (see `tell`)."""
    resume: str | None = None


ConfigStore.instance().store(name="settings", node=Settings)


@hydra.main(version_base="1.3", config_path=None, config_name="settings")
def run(settings: Settings) -> None:
    folder = Path(HydraConfig.get().runtime.output_dir)
    (folder / "folder_was_used").touch()
    steps, starts = folder / "steps.txt", folder / "starts.txt"
    before = starts.exists()
    append(starts, f"{os.getpid()} {time.time()} threads {os.environ.get('OMP_NUM_THREADS')}")
    assert settings.resume == "auto"
    if settings.mode == "deaf":
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    end(settings.mode)
    if settings.mode == "tell":
        (folder / "told.json").write_text(json.dumps(tell()))
    if settings.mode == "orphan":
        (folder / "child.txt").write_text(str(subprocess.Popen(["sleep", "600"]).pid))
        raise RuntimeError("its child lives on")
    done = len(steps.read_text().splitlines()) if steps.exists() else 0
    for step in range(done, settings.steps):
        time.sleep(settings.pause)
        if settings.mode == "raise" or (settings.mode == "raise_once" and not before):
            raise RuntimeError("the loss went away")
        if settings.mode == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if settings.mode == "hang_once" and step and not before:
            time.sleep(600)
        append(steps, f"step {step} lr {settings.lr} seed {settings.seed}")
    objective = None if settings.mode == "nan" else (settings.lr - 0.01) ** 2 + settings.seed
    (folder / "metrics.json").write_text(json.dumps({"objective": objective}))
    append(starts, f"end {time.time()}")


def end(mode: str) -> None:
    """End at once in one of several ways."""
    if mode in ("crash", "leave"):
        print("before the end")
    if mode == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if mode == "exit":
        sys.exit(3)
    if mode == "say":
        sys.exit("its last words")
    if mode == "leave":
        os._exit(5)


def tell() -> dict[str, object]:
    """What a process finds when it begins."""
    main = sys.modules["__main__"]
    return {
        "environment": dict(os.environ),
        "sys": [sys.argv, sys.orig_argv, sys.path, sys.flags.safe_path, sys.stdout.encoding, sys.stdin.isatty()],
        "main": [main.__file__, main.__name__, repr(main.__spec__), main.Settings is Settings],
        "handlers": [repr(signal.getsignal(each)).split(" at ")[0] for each in sorted(signal.valid_signals())],
        "blocked": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, [])),
        "streams": [os.readlink(f"/proc/self/fd/{number}") for number in range(3)],
        "open": len(os.listdir("/proc/self/fd")),
        "leads": os.getpgrp() == os.getpid(),
        "folder": os.getcwd(),
        "threads": len(os.listdir("/proc/self/task")),
        "parent": os.getppid(),
        "random": random.random(),
    }


def append(path: Path, line: str) -> None:
    with path.open("a") as file:
        file.write(line + "\n")


def terminated(number: int, frame: object) -> None:
    raise SystemExit(143)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, terminated)
    register_sweep_settings()
    modules = os.environ.get("MODULES", "qa_lm.config.hydra_settings qa_lm.sweeps.plugins").split()
    register_plugins(lambda task: OmegaConf.to_yaml(task, sort_keys=True), modules=modules)
    try:
        run()
    except KeyboardInterrupt:
        sys.exit(130)
