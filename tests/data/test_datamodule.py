"""The data module from a configuration: read once, each pair once, and the same batches as the run's own."""

import numpy as np
import pytest
import torch
from torch.utils.data import DistributedSampler

from qa_lm.config.schema import DataConfig, TokenizerConfig
from qa_lm.data.batches import datamodule
from qa_lm.data.batches.datamodule import PairsDataModule
from qa_lm.data.pairs import BUILTIN
from qa_lm.errors import UserError
from tests.modeling.plain_lightning import ten_pairs


def indices(loader):
    return torch.cat([batch.indices for batch in loader]).tolist()


def test_pairs_are_read_once_whatever_the_stages(monkeypatch):
    calls, original = [], datamodule.prepare

    def counted(*arguments):
        calls.append(1)
        return original(*arguments)

    monkeypatch.setattr(datamodule, "prepare", counted)
    data = ten_pairs()
    assert calls == []
    data.prepare_data()
    for stage in ("fit", "validate", "test", "predict"):
        data.setup(stage)
    assert len(calls) == 1


def test_another_process_needs_only_setup():
    data = ten_pairs()
    data.setup("fit")
    assert sorted(indices(data.train_dataloader())) == sorted(data.split.train)


@pytest.mark.parametrize("packing", [False, True])
def test_batches_are_those_of_prepared_pairs(packing):
    settings = {"packing": packing, "row_tokens": None, "shuffle": True, "batch_size": 2}
    data = ten_pairs(**settings)
    data.setup("fit")
    prepared = data.prepared
    row = prepared.row_tokens if packing else None
    own = PairsDataModule(prepared.examples, prepared.split, 2, True, 42, True, row, recall_pairs=512)
    loaders = [(data.train_dataloader(), own.train_dataloader())]
    loaders += list(zip(data.val_dataloader(), own.val_dataloader(), strict=True))
    assert len(loaders) == 3
    for mine, theirs in loaders:
        for one, other in zip(mine, theirs, strict=True):
            assert all(torch.equal(a, b) for a, b in zip(one[:6], other[:6], strict=True))


def test_prediction_goes_over_every_pair_and_a_test_over_the_test_pairs():
    data = ten_pairs(test_path=str(BUILTIN["tutorial"]))
    data.setup("predict")
    assert indices(data.predict_dataloader()) == list(range(20))
    assert sorted(indices(data.test_dataloader())) == sorted(data.split.test) == list(range(10, 20))


def test_lightning_leaves_the_rows_to_the_data_module():
    """Lightning puts a sampler of its own on any other, which would deal each process's rows out again."""
    data = ten_pairs()
    data.setup("fit")
    for loader in [data.train_dataloader(), *data.val_dataloader(), data.predict_dataloader()]:
        assert isinstance(loader.sampler, DistributedSampler)


def test_what_is_missing_is_said():
    data = ten_pairs()
    data.setup("test")
    assert len(data.split.test) == 0
    with pytest.raises(UserError, match="no test pairs; name their files in data.test_path"):
        data.test_dataloader()
    with pytest.raises(UserError, match="data.batch_size"):
        ten_pairs(batch_size=None)


def test_answer_bytes_are_those_of_utf_8(tmp_path):
    (tmp_path / "pairs.csv").write_text("question,answer\nA?,é\nB?,bb\nC?,ccc\n", encoding="utf-8")
    data = DataConfig(path=str(tmp_path / "pairs.csv"), split="shuffle", cache="off")
    prepared = PairsDataModule.from_config(data, TokenizerConfig("bpe", vocab_size=300)).prepared
    assert prepared.answer_bytes(np.array([0, 2])) == 2 + 3
    assert prepared.answer_bytes(np.array([], np.int64)) == 0
