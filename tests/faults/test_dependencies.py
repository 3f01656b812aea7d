"""Versions that must not be installed, and `make audit`."""

import json
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


def package(name: str, *vulnerabilities: str) -> dict[str, object]:
    found = [{"id": each, "fix_versions": ["9.9"], "aliases": [], "description": ""} for each in vulnerabilities]
    return {"name": name, "version": "1.0", "vulns": found}


def skipped(name: str) -> dict[str, object]:
    return {"name": name, "skip_reason": f"Dependency not found on PyPI and could not be audited: {name} (1.0)"}


@pytest.mark.parametrize(
    ("report", "ends", "code", "said"),
    [
        ([package("a"), package("b")], 0, 0, "audit: 0 known vulnerabilities in 2 packages, by pypi"),
        (
            [package("a", "PYSEC-1"), skipped("b")],
            1,
            2,
            "a 1.0: PYSEC-1; mended in 9.9\naudit: 1 known vulnerabilities in 1 packages, by pypi; not known there: b",
        ),
        # A mirror without advisories: pip-audit says "No known vulnerabilities found".
        ([skipped("a"), skipped("b")], 0, 0, "audit: no advisory service can be reached from here, so nothing"),
        (None, 1, 0, "audit: no advisory service can be reached from here, so nothing was checked"),
    ],
)
def test_make_audit(tmp_path, report, ends, code, said):
    """With a tool in the place of pip-audit, and a look at how it is called; make itself ends with 2 where the audit
    ends with 1."""
    if shutil.which("make") is None:
        pytest.skip("no make on PATH")
    answer = tmp_path / "report.json"
    answer.write_text(json.dumps({"dependencies": report, "fixes": []}))
    tool = tmp_path / "pip-audit"
    copy = "" if report is None else f'cp {answer} "$out"\n'
    tool.write_text(
        f'#!/bin/sh\necho "$@" >> {tmp_path}/calls\nwhile [ $# -gt 0 ]; do case $1 in --output) out=$2;; '
        f"--requirement) cat $2 > {tmp_path}/requirements;; esac; shift; done\n{copy}exit {ends}\n"
    )
    tool.chmod(0o755)
    command = ["make", "--no-print-directory", "-C", str(ROOT), "audit", f"PIP_AUDIT={tool}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.stdout.startswith(said), done
    assert done.returncode == code
    assert len(done.stdout.splitlines()) == len(said.splitlines())
    asked = (tmp_path / "requirements").read_text()
    assert asked.startswith(LOCK)
    assert re.search(r"^torch==[\d.]+$", asked.removeprefix(LOCK), flags=re.MULTILINE)
