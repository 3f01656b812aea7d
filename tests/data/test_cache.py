"""Prepared data is made once, by one process, and is whole or not there."""

import os
import subprocess
import sys
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qa_lm.config.schema import TokenizerConfig
from qa_lm.data import cache
from qa_lm.data.cache import cached_folder
from qa_lm.errors import UserError
from tests.prepared_pairs import folders, jsonl, path, prepared

__all__ = ["path"]


def test_the_second_time_nothing_is_made(path, tmp_path, monkeypatch):
    root = tmp_path / "cache"
    bpe = TokenizerConfig("bpe", vocab_size=300)
    first = prepared(path, root, bpe, split="near")
    made = folders(root)
    assert {name.split("/")[0] for name in made} == {"pairs", "near", "bpe", "encoded"}

    def never(*arguments):
        raise AssertionError("made again")

    for name in ("write_table", "write_store", "train_bpe"):
        monkeypatch.setattr(f"qa_lm.data.prepare.{name}", never)
    monkeypatch.setattr("qa_lm.data.quality.near.near_groups", never)
    second = prepared(path, root, bpe, split="near")
    assert folders(root) == made
    assert (second.split.train == first.split.train).all()
    assert second.examples.examples(second.split.train) == first.examples.examples(first.split.train)
    assert second.report == first.report


def test_what_changes_the_ids_makes_another_store(path, tmp_path):
    root = tmp_path / "cache"
    prepared(path, root)
    counts = [len(folders(root))]
    for change in (
        lambda: prepared(path, root, split_seed=1),  # another split of the same pairs: nothing new
        lambda: prepared(path, root, TokenizerConfig("bpe", vocab_size=300)),  # vocabulary, ids
        lambda: prepared(path, root, TokenizerConfig("bpe", vocab_size=300), split_seed=1),  # trained on other pairs
        lambda: prepared(jsonl(path, [("a", "b"), ("c", "d")]), root),  # the same name, another content: texts, ids
    ):
        change()
        counts.append(len(folders(root)))
    assert counts == [2, 2, 4, 6, 8]


def test_a_damaged_store_is_made_again_and_a_half_written_one_never_read(path, tmp_path):
    root = tmp_path / "cache"
    expected = prepared(path, root).examples.examples(np.arange(50))
    (store,) = (root / "encoded").glob("[!.]*")
    for damage in (lambda: (store / "ids.bin").write_bytes(b"xx"), (store / "meta.json").unlink):
        damage()
        assert prepared(path, root).examples.examples(np.arange(50)) == expected

    def dies(folder: Path) -> dict[str, Any]:
        (folder / "ids.bin").write_bytes(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cached_folder(root / "encoded", "key", dies)
    assert not (root / "encoded" / "key").exists()
    assert [name for name in os.listdir(root / "encoded") if not name.endswith(".lock")] == [store.name]


def _make_slowly(root: Path, number: int) -> str:
    def make(folder: Path) -> dict[str, Any]:
        with (root / "made").open("a") as file:
            file.write(f"{number}\n")
        (folder / "data").write_text("x" * 1_000_000)
        return {"by": number}

    return cached_folder(root / "kind", "key", make).joinpath("data").read_text()[:1]


def test_two_processes_make_a_folder_once(tmp_path):
    with get_context("fork").Pool(4) as pool:
        assert pool.starmap(_make_slowly, [(tmp_path, number) for number in range(8)]) == ["x"] * 8
    assert len((tmp_path / "made").read_text().splitlines()) == 1


def test_a_process_killed_while_it_writes_leaves_nothing_that_is_read(path, tmp_path):
    root = tmp_path / "cache"
    source = f"""
import os, signal
from pathlib import Path
from qa_lm.data.cache import cached_folder
def make(folder):
    (folder / "ids.bin").write_bytes(b"half")
    os.kill(os.getpid(), signal.SIGKILL)
cached_folder(Path({str(root)!r}) / "encoded", "key", make)
"""
    assert subprocess.run([sys.executable, "-c", source], check=False).returncode == -9
    assert not (root / "encoded" / "key").exists()
    assert len(list((root / "encoded").glob(".key.*/ids.bin"))) == 1
    made = cached_folder(root / "encoded", "key", lambda folder: {"whole": (folder / "a").write_text("a")})
    assert cache.read_meta(made)["whole"] == 1
    assert not list((root / "encoded").glob(".key.*/ids.bin"))


def test_cache_off_and_elsewhere(path, tmp_path, monkeypatch):
    monkeypatch.setenv("QA_LM_CACHE", str(tmp_path / "default"))
    (tmp_path / "default").mkdir()
    (tmp_path / "default" / "gpt2").symlink_to(Path.home() / ".cache" / "qa_lm" / "gpt2")
    for off in ("off", "False"):
        data = prepared(path, off)
        assert len(data.examples) == 50
        folder = data.examples.folder
        assert folder.is_dir()
        del data
    assert {entry.name for entry in (tmp_path / "default").iterdir()} == {"gpt2"}
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"the prepared data cannot be written: .*\n.*data.cache=off"):
        prepared(path, tmp_path / "file")
