"""Memory: what cannot fit is refused before training, what runs out meanwhile is one line, what is freed is kept."""

import json
import platform
import subprocess
import sys

import pytest
import torch

from qa_lm.errors import OutOfMemory, UserError
from qa_lm.modeling.module import CausalLMModule
from qa_lm.training import hardware
from qa_lm.training.train import train
from tests.conftest import ROOT, small_config


def test_a_model_that_cannot_fit_is_refused_before_anything_is_written(tmp_path):
    config = small_config(model__hidden_size=65536, model__layers=100, model__heads=1)
    wanted = (
        r"model: 5,154,\d{3} million parameters need at least 8\d{4}\.\d GB to be trained, and \S+ GB are free; "
        r"lower model.hidden_size \(65536\) or model.layers \(100\)"
    )
    with pytest.raises(UserError, match=wanted):
        train(config, tmp_path / "run")
    assert list((tmp_path / "run").iterdir()) == []


def test_what_is_free_heeds_limits_and_containers(tmp_path, monkeypatch):
    cpu = torch.device("cpu")
    monkeypatch.setattr(hardware, "CGROUP", tmp_path)
    machine = hardware.free_memory(cpu)
    assert machine > 10**8
    (tmp_path / "memory.max").write_text("1000000000\n")
    (tmp_path / "memory.current").write_text("400000000\n")
    assert hardware.free_memory(cpu) == 600_000_000
    (tmp_path / "memory.max").write_text("max\n")
    assert hardware.free_memory(cpu) > 600_000_000
    script = "import resource, torch; from qa_lm.training.hardware import free_memory; v = 40 * 2**30; "
    script += "resource.setrlimit(resource.RLIMIT_AS, (v, v)); print(free_memory(torch.device('cpu')))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=True)
    assert int(done.stdout) < 40 * 2**30


def test_running_out_while_training_is_one_line_with_the_settings_to_lower(tmp_path, monkeypatch):
    """The error is the real one, of torch's own allocator."""

    def too_much(self, batch, batch_idx):
        torch.empty(2**55)

    monkeypatch.setattr(CausalLMModule, "training_step", too_much)
    with pytest.raises(OutOfMemory) as found:
        train(small_config(data__batch_size=3), tmp_path / "run")
    assert str(found.value) == (
        "out of memory; lower data.batch_size (3) or model.hidden_size (64); evaluation.batch_size (32) if it happened "
        "after training"
    )


def test_other_errors_are_left_alone():
    assert hardware.as_out_of_memory(RuntimeError("shapes do not match"), small_config()) is None
    assert hardware.as_out_of_memory(torch.OutOfMemoryError("CUDA out of memory."), small_config())
    packed = hardware.as_out_of_memory(MemoryError(), small_config(data__packing=True, data__row_tokens=128))
    assert "data.row_tokens (128)" in str(packed)


def test_the_script_exits_with_1(script):
    """A limit on the address space, a little above what the imports take."""
    done = script(
        *("train.py", "tokenizer=bpe", "tokenizer.vocab_size=300", "model=tiny", "model.hidden_size=8192"),
        *("model.heads=8", "model.layers=1", "trainer.accelerator=cpu", "hydra.run.dir=run"),
        limits={"RLIMIT_AS": 9 * 2**30},
    )
    assert done.returncode in (1, 2), done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith(("error: out of memory; lower ", "error: model: 8"))


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries are left as they are")
def test_freed_memory_is_kept_once_training_begins():
    """Pages that the kernel has to make for the same memory, again and again: before, and after a first time.

    64 MiB at the heap's end, which would be given back, and 64 that a younger block keeps from it.
    """
    script = """
import ctypes, json, resource, torch
from qa_lm.training.hardware import tune_allocator

library = ctypes.CDLL(None)
library.malloc.restype = ctypes.c_void_p
library.malloc.argtypes = [ctypes.c_size_t]
library.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
library.free.argtypes = [ctypes.c_void_p]

def at_the_end():
    block = library.malloc(2**26)
    library.memset(block, 1, 2**26)
    library.free(block)

def pages():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(4):
        torch.ones(2**24)
        at_the_end()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

before = pages()
tune_allocator({})
pages()
print(json.dumps([before, pages()]))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=True)
    before, after = json.loads(done.stdout)
    assert before > 200  # 131,080, or 256 where the kernel makes huge pages
    assert after < before / 10


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries are left as they are")
def test_freed_memory_is_returned_on_request():
    script = """
import psutil, torch
from qa_lm.training.hardware import return_freed_memory, tune_allocator

tune_allocator({})
blocks = [torch.ones(2**18) for _ in range(128)]
full = psutil.Process().memory_info().rss
del blocks[:-1]
kept = psutil.Process().memory_info().rss
return_freed_memory()
print(full - kept, full - psutil.Process().memory_info().rss)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=True)
    kept, returned = map(int, done.stdout.split())
    assert kept < 2**24
    assert returned > 120 * 2**20
