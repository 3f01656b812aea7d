"""What torchrun and SLURM have started is read from the environment, and compared with the settings."""

import pytest

from qa_lm.errors import UserError
from qa_lm.training.distributed.launch import check_run_folder, with_launch


def torchrun(processes: int, per_node: int) -> dict[str, str]:
    return {"RANK": "1", "LOCAL_RANK": "0", "WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(per_node)}


def slurm(tasks: int, nodes: int, **more: str) -> dict[str, str]:
    counts = {"SLURM_NTASKS": tasks, "SLURM_NNODES": nodes, "SLURM_NTASKS_PER_NODE": tasks // nodes, "SLURM_STEP_ID": 0}
    return {name: str(count) for name, count in counts.items()} | more


@pytest.mark.parametrize(
    ("environment", "devices", "nodes"),
    [(torchrun(4, 2), 2, 2), (torchrun(2, 2), 2, 1), (torchrun(1, 1), 1, 1), (slurm(8, 2), 4, 2), (slurm(1, 1), 1, 1)],
)
@pytest.mark.parametrize("given", [{}, {"devices": -1}, {"devices": "auto", "strategy": "ddp"}])
def test_the_launcher_says_how_many_processes_there_are(environment, devices, nodes, given):
    assert with_launch(given, environment) == given | {"devices": devices, "num_nodes": nodes}


@pytest.mark.parametrize("given", [{"devices": 2, "num_nodes": 2}, {"devices": "2"}, {"devices": [0, 1]}])
def test_the_same_may_be_said_twice(given):
    assert with_launch(given, torchrun(4, 2)) == given | {"devices": given["devices"], "num_nodes": 2} | (
        {} if isinstance(given["devices"], list) else {"devices": 2}
    )


@pytest.mark.parametrize(
    ("given", "environment", "message"),
    [
        ({"devices": 4}, torchrun(4, 2), "trainer.devices=4: torchrun started 2 processes on each node"),
        ({"num_nodes": 3}, torchrun(4, 2), "trainer.num_nodes=3: torchrun started 2 nodes"),
        ({"devices": 2}, slurm(1, 1), "trainer.devices=2: SLURM started 1 processes on each node"),
        ({}, torchrun(3, 2), "torchrun or Ray started 3 processes, 2 of them on this node"),
        ({"num_nodes": 2}, {}, "trainer.num_nodes=2: start the processes of several nodes by torchrun or srun"),
        (
            {},
            {"SLURM_NTASKS": "2", "SLURM_STEP_ID": "0"},
            "SLURM: started 2 tasks; ask for them by --ntasks-per-node=N",
        ),
        ({}, slurm(3, 2), "SLURM: started 3 tasks on 2 nodes"),
        ({}, {"SLURM_NTASKS": "2"}, "SLURM: the job has 2 tasks, but this is a single process; start it with srun"),
    ],
)
def test_a_contradiction_is_refused(given, environment, message):
    """Lightning would wait forever, or train without some of the processes."""
    with pytest.raises(UserError, match=message):
        with_launch(given, environment)


@pytest.mark.parametrize("environment", [{}, {"WORLD_SIZE": "2"}, slurm(4, 2, SLURM_JOB_NAME="bash")])
def test_without_a_launcher_nothing_changes(environment):
    assert with_launch({"devices": 2}, environment) == {"devices": 2}


def test_several_processes_need_a_run_folder():
    with pytest.raises(UserError, match=r"add hydra.run.dir=FOLDER"):
        check_run_folder(["model=tiny"], torchrun(2, 1))
    check_run_folder(["hydra.run.dir=run"], torchrun(2, 1))
    check_run_folder(["++hydra.run.dir=run"], torchrun(2, 1))
    check_run_folder([], torchrun(1, 1))
