"""A payload that does no more than make a file, in the forms that attacks take; and what is looked at after one."""

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


class Trap:
    """A payload, and whether it ran.

    Args:
        folder: where it makes its file.
    """

    def __init__(self, folder: Path) -> None:
        self.marker = folder / "payload-ran"

    def __reduce__(self) -> tuple[Any, ...]:
        """Unpickling this object runs the payload."""
        return Path.touch, (self.marker,)

    @property
    def pickled(self) -> bytes:
        return pickle.dumps(self)

    @property
    def code(self) -> str:
        """As Python."""
        return f"import pathlib\npathlib.Path({str(self.marker)!r}).touch()\n"

    @property
    def target(self) -> dict[str, Any]:
        """As Hydra's instantiate takes it; `os.system`, which most attacks name, is on its list of refused ones."""
        return {"_target_": "pathlib.Path.touch", "self": {"_target_": "pathlib.Path", "_args_": [str(self.marker)]}}

    @property
    def sprang(self) -> bool:
        """Whether it ran since it was asked last."""
        ran = self.marker.exists()
        self.marker.unlink(missing_ok=True)
        return ran


@pytest.fixture
def trap(tmp_path: Path) -> Trap:
    return Trap(tmp_path)


def refused(main: Callable[[list[str]], int], arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """What a script says that ends with exit code 2: one or two lines, no traceback, nothing on standard output."""
    capsys.readouterr()
    assert main(arguments) == 2
    found = capsys.readouterr()
    lines = [line for line in found.err.splitlines() if not line.startswith("[transformers]")]
    assert lines[0].startswith("error: ")
    assert len(lines) <= 2
    assert found.out == ""
    return "\n".join(lines)


def copied(folder: Path, to: Path) -> Path:
    """A copy of a run folder or a model, to be changed."""
    shutil.copytree(folder, to)
    return to


def changed_json(path: Path, **changes: Any) -> None:
    """Change keys of a JSON object in a file."""
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def below(folder: Path) -> dict[str, bytes]:
    """Every file below a folder with its content."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
