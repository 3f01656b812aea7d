"""The processes that a launcher has started: torchrun, or SLURM's srun. Read from the environment, without torch."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from qa_lm.config.schema import TrainConfig
from qa_lm.errors import UserError

TORCHRUN = {"RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"}
"""Environment variables that torchrun sets."""
OPEN: tuple[object, ...] = (None, "auto", -1, "-1")
"""Values of `trainer.devices` that leave the number of processes to the launcher."""


def with_launch(trainer: dict[str, Any], environment: Mapping[str, str]) -> dict[str, Any]:
    """Complete the Trainer's arguments by what a launcher has started, so that nobody has to repeat it.

    Args:
        trainer: arguments of `lightning.Trainer`.
        environment: the environment variables of this process.

    Raises:
        UserError: the arguments contradict the launcher. Lightning would wait forever for the missing processes, or
            train without some of them.
    """
    if by_torchrun(environment):
        return _with_torchrun(trainer, environment)
    if "SLURM_NTASKS" in environment and environment.get("SLURM_JOB_NAME") not in ("bash", "interactive"):
        return _with_slurm(trainer, environment)
    if (nodes := trainer.get("num_nodes") or 1) > 1:
        raise UserError(
            f"trainer.num_nodes={nodes}: start the processes of several nodes by torchrun or srun", "trainer.num_nodes"
        )
    return trainer


def by_torchrun(environment: Mapping[str, str]) -> bool:
    """Whether torchrun has started this process, or a launcher that sets the same variables, such as Ray."""
    return environment.keys() >= TORCHRUN


def check_run_folder(arguments: list[str], environment: Mapping[str, str]) -> None:
    """Refuse to start several processes that would not know the run folder of the first: its usual name is a time.

    Raises:
        UserError: says what to add.
    """
    started = with_launch({}, environment)
    several = started.get("devices", 1) * started.get("num_nodes", 1) > 1
    if several and not any(each.lstrip("+").startswith("hydra.run.dir=") for each in arguments):
        raise UserError(
            "hydra.run.dir: the processes that a launcher starts must agree on the run folder; "
            "add hydra.run.dir=FOLDER, on a file system that all of them see"
        )


def without_launch(config: TrainConfig, environment: Mapping[str, str]) -> TrainConfig:
    """Leave the number of processes to the launcher again, in the settings that are stored: a run may be resumed by
    another one."""
    if with_launch({}, environment) == {}:
        return config
    trainer = {name: value for name, value in config.trainer.items() if name not in ("devices", "num_nodes")}
    return replace(config, trainer=trainer)


def _with_torchrun(trainer: dict[str, Any], environment: Mapping[str, str]) -> dict[str, Any]:
    processes, devices = int(environment["WORLD_SIZE"]), int(environment["LOCAL_WORLD_SIZE"])
    nodes, rest = divmod(processes, devices)
    if rest:
        raise UserError(
            f"torchrun or Ray started {processes} processes, {devices} of them on this node; every node must have as "
            "many"
        )
    return _completed(trainer, devices, nodes, "torchrun", "--nproc-per-node and --nnodes")


def _with_slurm(trainer: dict[str, Any], environment: Mapping[str, str]) -> dict[str, Any]:
    tasks, nodes = int(environment["SLURM_NTASKS"]), int(environment.get("SLURM_NNODES", "1"))
    if tasks > 1 and "SLURM_STEP_ID" not in environment:
        raise UserError(f"SLURM: the job has {tasks} tasks, but this is a single process; start it with srun")
    if tasks > 1 and "SLURM_NTASKS_PER_NODE" not in environment:
        raise UserError(f"SLURM: started {tasks} tasks; ask for them by --ntasks-per-node=N, a task per device")
    per_node, rest = divmod(tasks, nodes)
    if rest:
        raise UserError(
            f"SLURM: started {tasks} tasks on {nodes} nodes; ask for --ntasks-per-node=N, a task per device"
        )
    return _completed(trainer, per_node, nodes, "SLURM", "--ntasks-per-node and --nodes of srun")


def _completed(trainer: dict[str, Any], devices: int, nodes: int, launcher: str, options: str) -> dict[str, Any]:
    """Fill `devices` and `num_nodes`, or compare them."""
    for name, given, started in (
        ("devices", trainer.get("devices"), devices),
        ("num_nodes", trainer.get("num_nodes"), nodes),
    ):
        count = len(given) if isinstance(given, list) else given
        if count not in OPEN and str(count) != str(started):
            per = "processes on each node" if name == "devices" else "nodes"
            raise UserError(
                f"trainer.{name}={given}: {launcher} started {started} {per}; leave trainer.{name} out, or change "
                f"{options}",
                f"trainer.{name}",
            )
    kept = trainer["devices"] if isinstance(trainer.get("devices"), list) else devices  # which GPUs
    return trainer | {"devices": kept, "num_nodes": nodes}
