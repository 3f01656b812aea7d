"""`scripts/ask.py` starts without modules that it does not need, and answers the same."""

import gc
import json
import os
import subprocess
import sys

import pytest
import torch

from qa_lm import quick_start
from qa_lm.data.encoding import PromptTemplate
from qa_lm.data.tokenizer import train_bpe
from qa_lm.modeling.causal_lm import build_causal_lm
from tests.conftest import ROOT
from tests.inference.test_greedy import ARCHITECTURES

UNNEEDED = (
    *("hydra", "lightning", "omegaconf", "pyarrow", "sklearn", "scipy", "torch._dynamo", "torch._inductor"),
    "torch.distributed.tensor",
)
ANSWERS = """
import contextlib, json, sys
from pathlib import Path
from qa_lm import quick_start
PLANT
with quick_start.light_transformers() if sys.argv[1] == "light" else contextlib.nullcontext():
    from qa_lm.inference.answerer import Answerer
    answerers = [Answerer.load(Path(folder)) for folder in sys.argv[2:]]
questions = ["What is 2 + 2?", "Who?", "How are you today, my friend?"]
answers = [[(each.answer, each.log_probability) for each in answerer.answer(questions, 20)] for answerer in answerers]
print(json.dumps({"answers": answers, "modules": list(sys.modules)}))
"""


def answers(mode, folders, plant="", then=""):
    """The answers of the models in a process of its own, and the modules that it has imported."""
    command = [sys.executable, "-c", ANSWERS.replace("PLANT", plant) + then, mode, *map(str, folders)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    return found["answers"], unneeded(found["modules"])


def unneeded(modules):
    return {name for name in UNNEEDED if name in modules}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A model folder for each architecture."""
    tokenizer, found = train_bpe(["What is 2 + 2?"], 300), []
    for architecture in ARCHITECTURES:
        torch.manual_seed(0)
        model = build_causal_lm(architecture, len(tokenizer), 64, 2, 2, 64, 0.0, tokenizer.eos_id)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim == 2:
                    parameter.normal_(0, 0.2)
        folder = tmp_path_factory.mktemp(architecture)
        model.save_pretrained(folder)
        tokenizer.save(folder, 64)
        PromptTemplate().save(folder)
        found.append(folder)
    return found


@pytest.fixture(scope="module")
def plain(folders):
    found, modules = answers("plain", folders)
    assert {"torch._dynamo", "torch.distributed.tensor", "scipy"} <= modules
    assert len({text for each in found for text, _ in each}) > len(folders)
    return found


@pytest.mark.slow
def test_answers_are_the_same_and_torch_can_still_compile(folders, plain):
    then = """
import torch, transformers.masking_utils
with transformers.masking_utils.TransformGetItemToIndex():
    assert torch.ones(2)[torch.tensor(1)] == 1
assert torch.compile(lambda x: x + 1, backend="eager")(torch.ones(1)) == 2
assert torch._dynamo.__file__
"""
    assert answers("light", folders, then=then) == (plain, set())


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [
        "from transformers.utils import import_utils; del import_utils._is_package_available",
        "quick_start.MODULES += ('transformers.no_such_module',)",
    ],
)
def test_other_names_in_another_version_lead_to_the_usual_import(folders, plain, change):
    found, modules = answers("light", folders[:2], plant=change)
    assert found == plain[:2]
    assert "torch._dynamo" in modules


@pytest.mark.slow
def test_code_that_uses_the_compiler_gets_the_real_one(folders, plain):
    then = """
sys.modules.update(quick_start._stand_ins())
import torch._dynamo.config
assert torch._dynamo.config is sys.modules["torch._dynamo.config"]
assert torch._dynamo.reset
assert torch._dynamo.__file__
"""
    assert answers("light", folders[:1], then=then)[0] == plain[:1]


def imported_by_ask(run, *arguments):
    """The modules that ask.py imports to answer a question."""
    source = "import atexit, json, runpy, sys; atexit.register(lambda: print(json.dumps(list(sys.modules))));"
    source += "sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    command = [sys.executable, "-c", source, str(ROOT / "scripts" / "ask.py"), str(run), "What is 2 + 2?", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def test_ask_imports_what_it_needs(small_run):
    assert unneeded(imported_by_ask(small_run.folder)) == set()


def test_texts_are_compared_without_scikit_learn(small_run):
    """As a server compares them; scikit-learn would import pandas and all of scipy, which takes a second."""
    modules = imported_by_ask(small_run.folder, "--mode", "nearest", "--explain")
    assert "scipy.sparse" in modules
    assert {"sklearn", "pandas", "scipy.stats", "scipy.optimize", "datasketch"}.isdisjoint(modules)


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="needs a terminal")
def test_ask_says_on_a_terminal_that_it_loads(small_run):
    here, terminal = os.openpty()
    command = [sys.executable, str(ROOT / "scripts" / "ask.py"), str(small_run.folder), "How are you?"]
    environment = os.environ | {"COLUMNS": "20"}
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=terminal, env=environment, check=True)
    said = f"loading {small_run.folder}"[:19]
    assert os.read(here, 1000).decode() == f"{said}\r{' ' * 19}\r"
    assert done.stdout.decode().count("\n") == 1
    assert "loading" not in done.stdout.decode()


def test_garbage_collection_does_not_look_through_what_was_imported():
    frozen = gc.get_freeze_count()
    with quick_start.without_garbage_collection():
        assert not gc.isenabled()
        made = [[number] for number in range(10_000)]
    assert gc.isenabled()
    assert gc.get_freeze_count() >= frozen + len(made)
    gc.disable()
    with quick_start.without_garbage_collection():
        pass
    assert not gc.isenabled()
    gc.enable()
