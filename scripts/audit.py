"""Look up the locked packages in advisory services: `python scripts/audit.py requirements.lock [PACKAGE==VERSION ...]`.

`make audit` runs it. pip-audit does the work, in an environment of its own that is gone afterwards. Exit code 1 if a
vulnerability is known; 0 if none is, or, with a line that says so, where no service could be asked.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import venv
from pathlib import Path
from typing import Any

TOOL = "pip-audit==2.10.1"
SERVICES = ("pypi", "osv")
UNREACHABLE = "audit: no advisory service can be reached from here, so nothing was checked"


def main(arguments: list[str] | None = None) -> int:
    """Ask, print, return the exit code."""
    parser = argparse.ArgumentParser(description="Look up locked packages in advisory services.")
    parser.add_argument("lock", type=Path, metavar="LOCK", help="a file of requirements, each pinned")
    parser.add_argument("more", nargs="*", metavar="PACKAGE==VERSION", help="packages that the file leaves out")
    parser.add_argument("--tool", metavar="COMMAND", help="a pip-audit that is there (default: one made for this call)")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        requirements = Path(folder) / "requirements.txt"
        requirements.write_text("\n".join([options.lock.read_text(encoding="utf-8"), *options.more, ""]))
        tool: str | None = options.tool or _installed(Path(folder) / "tool")
        for service in SERVICES if tool else ():
            assert tool
            report = _report(tool, service, requirements, Path(folder) / f"{service}.json")
            if report is not None:
                return _judge(report, service)
    print(UNREACHABLE)
    return 0


def _installed(folder: Path) -> str | None:
    """pip-audit in a new environment; None if it cannot be had."""
    venv.create(folder, with_pip=True)
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", TOOL]
    done = subprocess.run(pip, capture_output=True, text=True)
    return str(folder / "bin" / "pip-audit") if done.returncode == 0 else None


def _report(tool: str, service: str, requirements: Path, report: Path) -> list[dict[str, Any]] | None:
    """What a service knows of each package; None if it did not answer, or knows none of them.

    pip-audit ends with 1 both when it finds something and when it fails, and calls packages that a service does not
    know, as behind a mirror that holds no advisories, free of vulnerabilities: only its report tells them apart.
    """
    options = ["--requirement", str(requirements), "--no-deps", "--disable-pip", "--vulnerability-service", service]
    more = ["--progress-spinner", "off", "--timeout", "15", "--format", "json", "--output", str(report)]
    subprocess.run([tool, *options, *more], capture_output=True, text=True)
    if not report.is_file() or not report.stat().st_size:
        return None
    packages: list[dict[str, Any]] = json.loads(report.read_text(encoding="utf-8"))["dependencies"]
    return packages if any("skip_reason" not in package for package in packages) else None


def _judge(packages: list[dict[str, Any]], service: str) -> int:
    known = [package for package in packages if "skip_reason" not in package]
    found = [(package, each) for package in known for each in package["vulns"]]
    for package, each in found:
        mended = f"; mended in {', '.join(each['fix_versions'])}" if each.get("fix_versions") else ""
        print(f"{package['name']} {package['version']}: {each['id']}{mended}")
    left = [package["name"] for package in packages if "skip_reason" in package]
    unknown = f"; not known there: {', '.join(left)}" if left else ""
    print(f"audit: {len(found)} known vulnerabilities in {len(known)} packages, by {service}{unknown}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
