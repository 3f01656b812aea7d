"""Starts the processes of a run as launchers do: torchrun, with one process on each of two nodes of this machine."""

import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from tests.conftest import ROOT


def free_port() -> int:
    with closing(socket.socket()) as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


def start_torchrun(
    folder: Path, *arguments: str, nodes: int = 2, per_node: int = 1, folders: Sequence[str] = ()
) -> list["subprocess.Popen[str]"]:
    """Start train.py by torchrun, a command on each node, which may have a folder of its own."""
    options = [f"--nnodes={nodes}", f"--nproc-per-node={per_node}", "--master-addr=127.0.0.1"]
    options.append(f"--master-port={free_port()}")
    command = [sys.executable, "-m", "torch.distributed.run", *options]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(folder)}
    return [
        subprocess.Popen(
            [*command, f"--node-rank={rank}", str(ROOT / "scripts" / "train.py"), *arguments],
            cwd=folder / folders[rank] if folders else folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(nodes)
    ]


def torchrun(folder: Path, *arguments: str, nodes: int = 2, per_node: int = 1) -> list[tuple[int, str]]:
    """Run train.py by torchrun to its end. Returns the exit code and the output of each node."""
    started = start_torchrun(folder, *arguments, nodes=nodes, per_node=per_node)
    outputs = [process.communicate(timeout=600)[0] for process in started]
    return [(process.returncode, output) for process, output in zip(started, outputs, strict=True)]
