"""A model that is too large for the memory limit of one process is trained by two."""

import re

import pytest

LARGE = (
    *("tokenizer=bpe", "tokenizer.vocab_size=300", "model=tiny", "model.hidden_size=768", "model.heads=12"),
    *("model.layers=12", "data.row_tokens=64", "data.packing=true", "trainer.accelerator=cpu", "trainer.max_epochs=2"),
    *("trainer.precision=32-true", "loggers=none", "evaluation.max_new_tokens=4", "early_stopping.patience=null"),
)
"""85 million parameters: 1.37 GB of weights, gradients and AdamW's state, and half of it in each of two processes."""
REFUSED = re.compile(r"need at least 1\.4 GB to be trained, and ([\d.]+) GB are free")
FREE = 1.15e9


@pytest.mark.slow
def test_two_processes_train_what_one_cannot(script, tmp_path):
    first = 2200 * 2**20
    done = script("train.py", *LARGE, "data.batch_size=2", "hydra.run.dir=one", limits={"RLIMIT_DATA": first})
    found = REFUSED.search(done.stderr)
    assert found, done.stderr
    limits = {"RLIMIT_DATA": int(first + FREE - float(found[1]) * 1e9)}
    done = script("train.py", *LARGE, "data.batch_size=2", "hydra.run.dir=one", limits=limits)
    assert done.returncode == 2
    assert REFUSED.search(done.stderr)
    two = ("data.batch_size=1", "trainer.devices=2", "trainer.strategy=fsdp2", "hydra.run.dir=two")
    done = script("train.py", *LARGE, *two, limits=limits)
    assert done.returncode == 0, done.stderr
    assert "epoch 2/2" in done.stdout
