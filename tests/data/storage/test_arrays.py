"""Arrays in files hold the numbers that NumPy computes in memory, and memory does not grow with the pairs."""

import errno
import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qa_lm.config.enums import TooLong
from qa_lm.config.schema import TokenizerConfig
from qa_lm.data import keys
from qa_lm.data.batches import batching, packing
from qa_lm.data.batches.batching import PackedRows, PaddedRows
from qa_lm.data.splits.draw import shuffled_split, unit_split
from qa_lm.data.splits.file import write_split
from qa_lm.data.storage import arrays
from qa_lm.errors import UserError
from tests.prepared_pairs import jsonl, prepared

COUNT = 1000


def use_files(monkeypatch, folder):
    """Keep every array in a file, and cut everything into many blocks."""
    monkeypatch.setattr(arrays, "_folder", folder)
    monkeypatch.setattr(arrays, "IN_MEMORY", 0)
    monkeypatch.setattr(arrays, "BLOCK", 64)
    monkeypatch.setattr(batching, "BLOCK", 64)
    monkeypatch.setattr(packing, "PART", 50)
    monkeypatch.setattr(keys, "SLICE", 100)


@pytest.fixture
def in_files(monkeypatch, tmp_path):
    use_files(monkeypatch, tmp_path / "files")
    return tmp_path / "files"


@pytest.mark.parametrize("seed", range(3))
def test_the_numbers_are_those_of_numpy(in_files, seed):
    dice = np.random.default_rng(seed)
    small = dice.integers(0, 9, COUNT).astype(np.int32)
    chosen = dice.permutation(COUNT)[:700].astype(np.int32)
    for found, expected in (
        (arrays.zeros(COUNT, np.int16), np.zeros(COUNT, np.int16)),
        (arrays.numbered(COUNT), np.arange(COUNT, dtype=np.int32)),
        (arrays.joined([small, small[:3], small[:0]], np.int64), np.concatenate([small, small[:3]]).astype(np.int64)),
        (arrays.each_block(lambda block: small[block] * 2, chosen, np.int32), small[chosen] * 2),
        (arrays.where(COUNT, lambda block: small[block] > 4), np.flatnonzero(small > 4).astype(np.int32)),
        (arrays.ascending([chosen[:300], chosen[300:]], COUNT), np.sort(chosen)),
        (arrays.counted(small), np.bincount(small)),
        (arrays.order_of(small), np.argsort(small, kind="stable").astype(np.int32)),
        (
            arrays.shuffled(COUNT, np.random.default_rng([seed, 1])),
            np.random.default_rng([seed, 1]).permutation(COUNT),
        ),
    ):
        assert found.dtype == expected.dtype
        assert type(found) is np.ndarray  # generators shuffle a subclass in another way
        assert found.tolist() == expected.tolist()
    assert list(in_files.iterdir()) == []  # a killed process leaves nothing


def test_slices_hold_equal_keys_together(in_files):
    column = np.random.default_rng(0).integers(0, 2**63, 40).astype(np.uint64).repeat(25) * np.uint64(2)
    chosen = np.arange(0, COUNT, 3, dtype=np.int32)
    for indices in (None, chosen):
        found = list(keys.slices([column, column + np.uint64(1)], indices))
        assert len(found) > 2
        places = np.concatenate([places for places, _, _ in found])
        assert sorted(places.tolist()) == (chosen if indices is not None else np.arange(COUNT)).tolist()
        assert all((np.diff(places) > 0).all() for places, _, _ in found)
        assert all((column[places] == key).all() and (key + 1 == other).all() for places, key, other in found)
        of_slices = [set(key.tolist()) for _, key, _ in found]
        assert sum(map(len, of_slices)) == len(set.union(*of_slices))


def test_an_order_by_units_is_that_of_sorting(in_files):
    dice = np.random.default_rng(0)
    units = dice.integers(0, 2**63, 300).astype(np.uint64)[dice.integers(0, 300, COUNT)]
    own = dice.integers(0, 2**63, COUNT).astype(np.uint64)
    split = unit_split(units, own, 0.8, 7, "question")
    from qa_lm.data.splits.draw import _drawn

    expected = np.lexsort((_drawn(own, 7), _drawn(units, 7)))
    assert np.concatenate(split[:2]).tolist() == expected.tolist()
    borders = np.flatnonzero(np.diff(_drawn(units, 7)[expected])) + 1
    assert len(split.train) == borders[np.argmin(np.abs(borders - 0.8 * COUNT))]
    assert not set(units[split.train].tolist()) & set(units[split.validation].tolist())


def test_the_shuffle_is_that_of_the_tutorial(in_files):
    expected = list(range(COUNT))
    random.Random(42).shuffle(expected)
    split = shuffled_split(COUNT, 0.8, 42)
    assert [*split.train.tolist(), *split.validation.tolist()] == expected


def padded_order(lengths: np.ndarray, seed: int, epoch: int, together: int) -> list[int]:
    """The order of an epoch of padded rows, all in memory."""
    generator = np.random.default_rng([seed, epoch])
    order = generator.permutation(len(lengths))
    bucket = np.arange(len(lengths)) // (batching.BUCKET_BATCHES * together)
    order = order[np.lexsort((lengths[order], bucket))]
    whole = len(lengths) // together * together
    batches = generator.permutation(order[:whole].reshape(-1, together))
    return [*batches.ravel().tolist(), *order[whole:].tolist()]


def test_padded_epochs_are_those_computed_in_memory(in_files):
    lengths = np.random.default_rng(0).integers(1, 50, COUNT).astype(np.int32)
    rows = PaddedRows(np.arange(COUNT), lengths, True, 3, 2)
    for epoch in (0, 4):
        rows.set_epoch(epoch)
        assert [index for row in rows for index in row.examples] == padded_order(lengths, 3, epoch, 2)


def rows_of(kind, shuffle, processes=1, rank=0, seed=0):
    lengths = np.random.default_rng(0).integers(1, 30, COUNT).astype(np.int32)
    arguments = (np.arange(COUNT), lengths, shuffle, seed, 4)
    if kind == "packed":
        return PackedRows(*arguments, 64, rank, processes)
    return PaddedRows(*arguments, rank, processes)


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("kind", ["packed", "padded"])
def test_an_epoch_is_a_permutation_that_is_the_same_in_files_and_in_all_processes(monkeypatch, tmp_path, kind, shuffle):
    def epochs(**how):
        rows = rows_of(kind, shuffle, **how)
        found = []
        for epoch in range(3):
            rows.set_epoch(epoch)
            found.append([row.examples for row in rows])
        return found

    in_memory = epochs()
    use_files(monkeypatch, tmp_path / "files")
    in_files = epochs()
    assert in_files == in_memory
    for epoch in in_files:
        assert sorted(index for row in epoch for index in row) == list(range(COUNT))
    assert (in_files[0] != in_files[1]) is shuffle
    assert (in_files != epochs(seed=1)) is (shuffle or kind == "packed")
    parts = [epochs(processes=2, rank=rank) for rank in (0, 1)]
    for epoch, *of_process in zip(epochs(processes=2), *parts, strict=True):
        assert sorted(index for part in of_process for row in part for index in row) == list(range(COUNT))
        assert epoch == of_process[0]


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("kind", ["packed", "padded"])
def test_a_resumed_epoch_goes_on_with_the_next_batch(in_files, kind, processes):
    for rank in range(processes):
        rows = rows_of(kind, True, processes, rank)
        rows.set_epoch(2)
        whole = [row.examples for row in rows]
        for batches in (1, 7, rows.batches - 1, rows.batches):
            resumed = rows_of(kind, True, processes, rank)
            resumed.begin_at(2, batches)
            assert [row.examples for row in resumed] == whole[batches * rows.batch_size :]
            resumed.set_epoch(3)
            assert len(list(resumed)) == len(whole)


def test_prepared_pairs_are_the_same_in_files(monkeypatch, tmp_path):
    dice = random.Random(0)
    pairs = [
        (f"Question {dice.randrange(500)}{'!' * dice.randrange(3)}", f"Answer {dice.randrange(50)}") for _ in range(800)
    ]
    file = jsonl(tmp_path / "pairs.jsonl", pairs)
    bpe = TokenizerConfig("bpe", vocab_size=300)

    def all_of(**settings):
        found = prepared(file, tmp_path / "cache", bpe, **settings)
        write_split(tmp_path / "split.csv", found.table, found.split)
        sizes = found.sizes()
        return [
            # Sums of logarithms by slices may differ in the last digit.
            json.loads(json.dumps(found.report.as_dict()), parse_float=lambda text: round(float(text), 10)),
            found.row_tokens,
            found.fingerprints(),
            (sizes.lengths.tolist(), sizes.answer, sizes.paraphrases),
            (tmp_path / "split.csv").read_bytes(),
        ]

    settings: list[dict[str, Any]] = [
        {"split": "question", "packing": True},
        {"split": "shuffle"},
        {"validation_path": str(jsonl(tmp_path / "held_out.jsonl", [("A?", "b"), ("Question 7", "c")]))},
        {"group": "answer", "split": "phrasing_and_fact"},
        {"row_tokens": 7, "packing": True, "too_long": TooLong.drop},
    ]
    in_memory = [all_of(**each) for each in settings]
    assert in_memory[0][0]["repeats"]["count"]
    assert in_memory[0][0]["contradictions"]["questions"]
    assert in_memory[4][0]["too_long"]["count"]
    use_files(monkeypatch, tmp_path / "files")
    assert [all_of(**each) for each in settings] == in_memory


def test_a_full_disk_is_named(in_files, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(UserError, match=r"files: .*No space left.*\n.*data.cache=FOLDER.*TMPDIR"):
        arrays.zeros(COUNT, np.int64)


def test_a_file_system_that_reserves_no_space(in_files, monkeypatch):
    def unsupported(*_):
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    monkeypatch.setattr(os, "posix_fallocate", unsupported)
    assert arrays.zeros(COUNT, np.int64).tolist() == [0] * COUNT


def test_a_cache_that_cannot_be_written_is_not_needed(in_files):
    in_files.parent.joinpath("files").write_text("a file in the way")
    assert arrays.zeros(COUNT, np.int64).sum() == 0


def peaks(folder: Path, *counts: int, scale: int) -> list[float]:
    command = [sys.executable, "-m", "tests.data.storage.numbers_alone", str(folder), str(scale), *map(str, counts)]
    found: list[float] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return found


def test_memory_does_not_grow_with_the_pairs(tmp_path):
    """With limits and numbers of pairs that are both smaller; in memory, the further pairs take 14 MiB."""
    _, before, after = peaks(tmp_path, 50_000, 50_000, 450_000, scale=32)
    assert after - before < 7


@pytest.mark.slow
def test_memory_does_not_grow_with_millions_of_pairs(tmp_path):
    _, before, after = peaks(tmp_path, 1_000_000, 1_000_000, 5_000_000, scale=1)
    assert after - before < 80  # in memory, the further pairs take 170 MiB
