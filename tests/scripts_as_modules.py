"""The scripts as modules, to call their `main` in this process."""

import importlib.util
from types import ModuleType

from tests.conftest import ROOT


def _loaded(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


ask, evaluate, ledger, check_data, train = map(_loaded, ("ask", "evaluate", "ledger", "check_data", "train"))
