"""The command that a run was started by."""

COMMAND = "qa-lm train"
"""The first word of a run's command where the installed command started it."""
WORKERS = ("_submit.py", "default_worker.py")
"""The programs that submitit and Ray run a job in; their command lines do not say which job."""


def given_command(environment: dict[str, object]) -> list[str]:
    """The command that environment.json keeps; empty where nobody typed it."""
    command = environment.get("command")
    parts = [str(part) for part in command] if isinstance(command, list) else []
    return [] if parts and parts[0] in WORKERS else parts


def training_program(environment: dict[str, object]) -> list[str]:
    """What starts a training for someone who started the run of this environment.json."""
    return COMMAND.split() if given_command(environment)[:1] == [COMMAND] else ["python", "scripts/train.py"]
