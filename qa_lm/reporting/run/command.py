"""The command that started a run."""

COMMAND = "qa-lm train"
"""First word of the recorded command of a run that the installed command started."""
WORKERS = ("_submit.py", "default_worker.py")
"""Programs in which submitit and Ray run a job. Their command lines do not say which job."""


def given_command(environment: dict[str, object]) -> list[str]:
    """The command recorded in environment.json; empty if a cluster worker started the run."""
    command = environment.get("command")
    parts = [str(part) for part in command] if isinstance(command, list) else []
    return [] if parts and parts[0] in WORKERS else parts


def training_program(environment: dict[str, object]) -> list[str]:
    """The program that starts a training, as it was called for the run of this environment.json."""
    return COMMAND.split() if given_command(environment)[:1] == [COMMAND] else ["python", "scripts/train.py"]
