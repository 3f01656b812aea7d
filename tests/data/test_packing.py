"""Rows and batches: each example once, nothing crosses examples, packed equals unpacked."""

from itertools import chain

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qa_lm.batch import UNTRAINED
from qa_lm.data.batches.batching import PackedRows, PaddedRows, Row
from qa_lm.data.batches.collate import Collate
from qa_lm.data.batches.datamodule import PairsDataModule
from qa_lm.data.batches.packing import plan_rows
from qa_lm.data.pairs import Pair
from qa_lm.data.splits.draw import shuffled_split
from qa_lm.data.tokenizer import train_bpe
from qa_lm.modeling.causal_lm import head, hidden_states
from qa_lm.modeling.loss import batch_loss
from tests.conftest import SHARED_DATA, builtin, encoded, read
from tests.modeling.test_modeling import ARCHITECTURES, build

ROW = 64


def some_pairs(count: int, seed: int = 0) -> list[Pair]:
    """Questions and answers of very different lengths."""
    generator = np.random.default_rng(seed)

    def text(most: int) -> str:
        return " ".join(f"w{number}" for number in generator.integers(0, 20, generator.integers(1, most)))

    return [Pair(text(6) + "?", text(4)) for _ in range(count)]


@pytest.fixture(scope="module")
def bpe():
    return train_bpe([text for pair in some_pairs(200) for text in pair[:2]], 300)


@given(st.lists(st.integers(1, ROW), max_size=200), st.integers(0, 2**32), st.booleans())
@settings(max_examples=300, deadline=None)
def test_every_epoch_has_each_example_once_in_rows_that_are_not_too_long(lengths, seed, shuffle):
    sizes = np.array(lengths, np.int32)
    indices = np.arange(len(sizes), dtype=np.int32) * 3 + 1  # places in a table, not ranks
    rows = PackedRows(indices, sizes, shuffle, seed, 1, ROW)
    for epoch in (0, 1, 5):
        rows.set_epoch(epoch)
        found = list(rows)
        assert len(found) == len(rows)
        assert sorted(index for row in found for index in row.examples) == indices.tolist()
        assert all(0 < sum(lengths[(index - 1) // 3] for index in row.examples) <= ROW for row in found)
        assert found == list(rows)
    # Best fit never leaves two rows that would fit into one.
    totals = sorted(sum(lengths[(index - 1) // 3] for index in row.examples) for row in found)
    assert len(totals) < 2 or totals[0] + totals[1] > ROW


@given(st.lists(st.integers(1, 50), max_size=100), st.integers(0, 2**32), st.integers(1, 9), st.booleans())
@settings(max_examples=200, deadline=None)
def test_padded_rows_have_each_example_once(lengths, seed, batch_size, shuffle):
    sizes, indices = np.array(lengths, np.int32), np.arange(len(lengths), dtype=np.int32)
    rows = PaddedRows(indices, sizes, shuffle, seed, batch_size)
    for epoch in (0, 1):
        rows.set_epoch(epoch)
        found = [index for row in rows for index in row.examples]
        assert (sorted(found) if shuffle else found) == indices.tolist()
        assert len(found) == len(rows)


@pytest.mark.parametrize("kind", ["packed", "padded"])
def test_epochs_differ_and_a_seed_repeats_them(kind):
    sizes = np.random.default_rng(0).integers(5, 30, 200).astype(np.int32)

    def epochs(seed):
        arguments = (np.arange(200), sizes, True, seed, 4, *([ROW] if kind == "packed" else []))
        rows = PackedRows(*arguments) if kind == "packed" else PaddedRows(*arguments)
        found = []
        for epoch in range(3):
            rows.set_epoch(epoch)
            torch.rand(1)  # what drew before changes nothing
            found.append([tuple(row.examples) for row in rows])
        return found

    one, other = epochs(0), epochs(1)
    assert one == epochs(0)
    assert one != other
    together = [{frozenset(row) for row in epoch} for epoch in one]
    if kind == "packed":
        assert len(together[0] & together[1]) < len(together[0]) / 10  # other rows, not only another order
        assert len({len(epoch) for epoch in one}) == 1
    assert one[0] != one[1] != one[2]


def test_shuffled_padding_is_little_and_batches_come_in_no_order_of_length():
    sizes = np.random.default_rng(0).integers(5, 200, 10_000).astype(np.int32)
    rows = PaddedRows(np.arange(10_000), sizes, True, 0, 16)
    batches = sizes[[index for row in rows for index in row.examples]].reshape(-1, 16)
    assert sizes.sum() / (batches.max(1).sum() * 16) > 0.95
    assert abs(np.corrcoef(np.arange(len(batches)), batches.mean(1))[0, 1]) < 0.15


@pytest.mark.parametrize("shuffle", [True, False])
def test_a_batch_holds_exactly_its_examples(bpe, template, tmp_path, shuffle):
    pairs = some_pairs(40)
    store = encoded(pairs, bpe, template, tmp_path, limit=ROW)
    examples = store.examples(np.arange(40))
    for train_on_question in (True, False):
        split = shuffled_split(40, 0.75, 0)
        data = PairsDataModule(store, split, 3, shuffle, 0, train_on_question, ROW)
        seen = []
        for batch in [*data.train_dataloader(), *chain(*data.val_dataloader())]:
            assert batch.inputs.shape[1] == ROW
            assert batch.pairs == int(batch.pair.max()) + 1
            assert batch.tokens == int((batch.pair >= 0).sum())
            for number in range(batch.pairs):
                here = batch.pair == number
                assert len(here.any(1).nonzero()) == 1  # in one row
                assert (here.nonzero()[:, 1].diff() == 1).all()  # side by side
                ids = [*batch.inputs[here].tolist(), bpe.eos_id]
                (index,) = (i for i, example in enumerate(examples) if example.ids == ids and i not in seen)
                seen.append(index)
                assert batch.positions[here].tolist() == list(range(len(ids) - 1))
                untrained = 0 if train_on_question else examples[index].prompt_tokens - 1
                assert batch.targets[here].tolist() == [UNTRAINED] * untrained + ids[1 + untrained :]
                assert batch.targets[here & batch.in_answer].tolist() == examples[index].answer_ids
            padding = batch.pair < 0
            assert (batch.targets[padding] == UNTRAINED).all()
            assert not batch.in_answer[padding].any()
        assert sorted(seen) == list(range(40))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize(("seed", "attention"), [(0, "sdpa"), (1, "sdpa"), (2, "sdpa"), (0, "eager")])
def test_packed_equals_unpacked(bpe, template, tmp_path, architecture, seed, attention):
    pairs = some_pairs(24, seed)
    store = encoded(pairs, bpe, template, tmp_path, limit=ROW)
    model = build(architecture, vocab_size=300, context=ROW)
    model.set_attn_implementation(attention)  # `eager` is what training on a CPU uses
    rows = list(PackedRows(np.arange(24), store.lengths(np.arange(24)), True, seed, 1, ROW))
    packed = Collate(store, True, ROW)(rows)
    assert packed.pairs == 24 > len(rows)
    # In the order of `packed.pair`.
    alone = Collate(store, True)([Row([index]) for row in rows for index in row.examples])
    hidden = hidden_states(model, packed.inputs, packed.positions)
    logits = head(model)(hidden)
    for number in range(24):
        inputs = alone.inputs[number][alone.pair[number] >= 0][None]
        expected = model(inputs).logits[0]
        torch.testing.assert_close(logits[packed.pair == number], expected, atol=1e-5, rtol=0)
    sums = batch_loss(hidden, head(model), packed, True)
    apart = batch_loss(hidden_states(model, alone.inputs, alone.positions), head(model), alone, True)
    torch.testing.assert_close(sums.loss, apart.loss, atol=1e-4, rtol=1e-5)
    assert (sums.weight, sums.exact) == (apart.weight, apart.exact)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_changing_an_example_leaves_its_row_mates_bit_equal(bpe, template, tmp_path, architecture):
    store = encoded(some_pairs(24), bpe, template, tmp_path, limit=ROW)
    model = build(architecture, vocab_size=300, context=ROW)
    rows = list(PackedRows(np.arange(24), store.lengths(np.arange(24)), True, 0, 1, ROW))
    batch = Collate(store, True, ROW)(rows)
    before = head(model)(hidden_states(model, batch.inputs, batch.positions))
    generator = torch.Generator().manual_seed(0)
    for number in range(batch.pairs):
        changed = batch.pair == number
        inputs = batch.inputs.clone()
        inputs[changed] = torch.randint(0, 300, (int(changed.sum()),), generator=generator)
        after = head(model)(hidden_states(model, inputs, batch.positions))
        others = (batch.pair >= 0) & ~changed
        assert torch.equal(after[others], before[others])
        assert not torch.equal(after[changed], before[changed])


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_no_gradient_crosses_examples(bpe, template, tmp_path, architecture):
    store = encoded(some_pairs(12), bpe, template, tmp_path, limit=ROW)
    model = build(architecture, vocab_size=300, context=ROW).double()
    rows = list(PackedRows(np.arange(12), store.lengths(np.arange(12)), True, 0, 1, ROW))
    batch = Collate(store, True, ROW)(rows[:1])
    embedded = model.get_input_embeddings()(batch.inputs).detach().requires_grad_()
    output = model.base_model(inputs_embeds=embedded, position_ids=batch.positions, use_cache=False).last_hidden_state
    for number in range(batch.pairs):
        mine = batch.pair == number
        (gradient,) = torch.autograd.grad(output[mine].pow(3).sum(), embedded, retain_graph=True)
        touched = gradient.abs().sum(-1) > 0
        assert touched[mine].all()
        assert not touched[~mine].any()


def test_a_worker_process_opens_the_store_again(bpe, template, tmp_path):
    import pickle

    store = encoded(some_pairs(12), bpe, template, tmp_path, limit=7)
    copy = pickle.loads(pickle.dumps(store))
    assert len(pickle.dumps(store)) < 1000
    assert copy.examples(np.arange(12)) == store.examples(np.arange(12))
    assert max(len(example.ids) for example in copy.examples(np.arange(12))) == 8


@pytest.mark.parametrize("kind", ["gpt2", "bpe"])
@pytest.mark.parametrize("count", [1050, 1358])
def test_the_capitals_fill_their_rows(gpt2, template, tmp_path, kind, count):
    """All of them, and as many as the experiment trains, with its vocabulary too."""
    pairs = builtin("capitals")
    tokenizer = gpt2 if kind == "gpt2" else train_bpe([text for pair in pairs for text in pair[:2]], 1500)
    lengths = encoded(pairs, tokenizer, template, tmp_path).lengths(np.arange(count))
    for seed in range(10):
        assert PackedRows(np.arange(count), lengths, True, seed, 1, 256).fill >= 0.98


@pytest.mark.parametrize(("most", "row_tokens"), [(40, 128), (60, 256), (400, 1024)])
def test_rows_of_a_thousand_are_full_to_the_last_one(most, row_tokens):
    """No more rows than tokens need, but for the last and one in a hundred."""
    for seed in range(20):
        lengths = np.random.default_rng(seed).integers(5, most, 1000).astype(np.int32)
        assert plan_rows(lengths, row_tokens, seed).rows <= np.ceil(lengths.sum() / row_tokens * 1.01)


@pytest.mark.skipif(not SHARED_DATA.is_dir(), reason="the folder of real pairs is not beside this clone")
@pytest.mark.parametrize(
    ("name", "row_tokens"),
    [
        *(("nq_open_dev", 256), ("webquestions", 256), ("korean_chatbot", 256), ("tldr_en", 256)),
        *(("gsm8k_train", 512), ("gsm8k_test", 512)),
    ],
)
def test_rows_of_real_data_are_full(gpt2, template, tmp_path, name, row_tokens):
    pairs = read(SHARED_DATA / f"{name}.jsonl.gz")
    lengths = encoded(pairs, gpt2, template, tmp_path, row_tokens).lengths(np.arange(len(pairs)))
    for seed in range(3):
        plan = plan_rows(lengths, row_tokens, seed)
        assert lengths.sum() / (plan.rows * row_tokens) >= 0.98
