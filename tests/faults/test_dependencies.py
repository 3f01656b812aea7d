"""Versions that must not be installed, and `make audit`."""

import re
import shutil
import subprocess
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from tests.conftest import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PINS = {each.name: each for each in map(Requirement, PROJECT["dependencies"])}
LOCK = (ROOT / "requirements.lock").read_text()


@pytest.mark.parametrize("version", ["2.6.2", "2.6.3", "2.6.4", "2.6.5"])
def test_bad_versions_of_lightning_are_refused(version):
    """2.6.2 and 2.6.3 were malware; up to 2.6.5 a checkpoint could run code (CVE-2026-58659)."""
    assert not PINS["lightning"].specifier.contains(version)
    assert Requirement("lightning>=2,<3").specifier.contains(version)
    assert PINS["lightning"].specifier.contains("2.6.6")


def test_what_is_installed_and_locked_is_within_the_pins():
    locked = dict(re.findall(r"^([\w.-]+)==([\w.]+)", LOCK, flags=re.MULTILINE))
    for name in ("lightning", "hydra-core", "omegaconf", "tensorboard", "pyarrow"):
        assert PINS[name].specifier.contains(locked[name])
    assert Version(locked["pyarrow"]) >= Version("14.0.1")  # before, a Parquet file could run code (CVE-2023-47248)


def test_every_locked_package_has_a_hash():
    for entry in re.split(r"\n(?=\S)", LOCK.strip()):
        assert re.match(r"[\w.-]+==\S+", entry), entry
        assert "--hash=sha256:" in entry, entry


def test_setup_installs_by_hash_and_nothing_else():
    makefile = (ROOT / "Makefile").read_text()
    installs = [line for line in makefile.splitlines() if "--requirement requirements.lock" in line]
    assert installs
    assert all("--require-hashes" in line and "--no-deps" in line for line in installs)


NOTHING = "audit: no advisory service can be reached from here, so nothing was checked\n"


@pytest.mark.parametrize(
    ("printed", "ends", "code", "said"),
    [
        ("No known vulnerabilities found", 0, 0, "No known vulnerabilities found\n"),
        ("Found 1 known vulnerability in 1 package", 1, 2, "Found 1 known vulnerability in 1 package\n"),
        # A mirror without advisories.
        ("ERROR:pip_audit._cli:a: Dependency not found on PyPI and could not be audited: a (1.0)", 1, 0, NOTHING),
        ("requests.exceptions.ConnectionError", 1, 0, NOTHING),
    ],
)
def test_make_audit(tmp_path, printed, ends, code, said):
    """With a tool in the place of pip-audit; make itself ends with 2 where the audit ends with 1."""
    if shutil.which("make") is None:
        pytest.skip("no make on PATH")
    tool = tmp_path / "pip-audit"
    tool.write_text(
        f'#!/bin/sh\necho "$@" > {tmp_path}/call\ncat > {tmp_path}/asked\necho "{printed}" >&2\nexit {ends}\n'
    )
    tool.chmod(0o755)
    command = ["make", "--no-print-directory", "-C", str(ROOT), "audit", f"PIP_AUDIT={tool}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.returncode) == (said, code)
    asked = (tmp_path / "asked").read_text().splitlines()
    assert re.fullmatch(r"torch==[\d.]+", asked.pop())
    assert asked == re.findall(r"^(\S+==.+?) *\\$", LOCK, flags=re.MULTILINE)
    assert {"--strict", "--no-deps"} <= {*(tmp_path / "call").read_text().split()}
