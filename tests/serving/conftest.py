"""One server that many tests ask."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from qa_lm.inference.answerer import Answerer
from qa_lm.training.train import TrainingResult
from tests.scripts_started import Scripts
from tests.serving.served import Served, calibrated, served


@pytest.fixture(scope="session")
def served_run(learnt_run: TrainingResult, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a calibration."""
    return calibrated(learnt_run.folder, tmp_path_factory.mktemp("served"))


@pytest.fixture(scope="session")
def answerer(served_run: Path) -> Answerer:
    """Its model."""
    return Answerer.load(served_run)


@pytest.fixture(scope="session")
def scripts(script_server: "subprocess.Popen[str]", tmp_path_factory: pytest.TempPathFactory) -> Scripts:
    """Starts scripts in a folder."""
    return Scripts(script_server, tmp_path_factory.mktemp("serving"))


@pytest.fixture(scope="session")
def server(scripts: Scripts, served_run: Path) -> Iterator[Served]:
    """A server without options."""
    with served(scripts, str(served_run)) as found:
        yield found
