"""Own formats, splits, models, losses and optimizers: what is taken, and the one line that is said of mistakes."""

import sys

import numpy as np
import pytest
import torch
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput, CausalLMOutput

import qa_lm
from qa_lm.batch import Batch
from qa_lm.commands import check_data
from qa_lm.config.schema import DataConfig
from qa_lm.data.readers.formats import READERS
from qa_lm.data.readers.problems import BadLine
from qa_lm.data.splits.draw import Split
from qa_lm.data.splits.registry import SPLITS
from qa_lm.errors import UserError
from qa_lm.inference.drafts import Draft
from qa_lm.inference.greedy import greedy_answers
from qa_lm.inference.sampling import Sampling, sample_answers
from qa_lm.modeling.custom_model import check_custom_model, continues_from_cache
from qa_lm.modeling.loss import batch_loss, checked_sums
from tests.conftest import small_config
from tests.prepared_pairs import GPT2, folders, jsonl, prepare

VOCABULARY = 40


class GruConfig(PretrainedConfig):
    model_type = "gru_of_tests"

    def __init__(self, vocab_size=VOCABULARY, hidden_size=16, max_position_embeddings=64, keeps=True, **more):
        self.vocab_size, self.hidden_size, self.keeps = vocab_size, hidden_size if keeps else 2 * hidden_size, keeps
        self.max_position_embeddings = max_position_embeddings
        super().__init__(**more)


class Body(PreTrainedModel):
    config_class = GruConfig

    def __init__(self, config):
        super().__init__(config)
        self.embedding = nn.Embedding(config.vocab_size, config.hidden_size)
        self.gru = nn.GRU(config.hidden_size, config.hidden_size, batch_first=True)

    def get_input_embeddings(self):
        return self.embedding

    def forward(self, input_ids, **unused):
        return BaseModelOutput(last_hidden_state=self.gru(self.embedding(input_ids))[0])


class Gru(PreTrainedModel):
    config_class, base_model_prefix = GruConfig, "body"
    body_class: type[Body] = Body
    rows = VOCABULARY

    def __init__(self, config):
        super().__init__(config)
        self.body = self.body_class(config)
        self.head = nn.Linear(config.hidden_size, self.rows, bias=False)
        self.post_init()

    def get_output_embeddings(self):
        return self.head

    def forward(self, input_ids, **unused):
        return CausalLMOutput(logits=self.head(self.body(input_ids).last_hidden_state))


class WithoutPositions(Body):
    def forward(self, input_ids):  # type: ignore[override]
        return super().forward(input_ids)


class SeesLater(Body):
    def forward(self, input_ids, **unused):
        states = super().forward(input_ids).last_hidden_state
        return BaseModelOutput(last_hidden_state=states + states.mean(1, keepdim=True))


def model_of(body=Body, rows=VOCABULARY, forward=Gru.forward, **settings):
    found = type("Gru", (Gru,), {"body_class": body, "rows": rows, "forward": forward})
    return found(GruConfig(**settings))


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (lambda: nn.Linear(2, 2), "must be a transformers PreTrainedModel, not Linear"),
        (lambda: model_of(WithoutPositions), "unexpected keyword argument 'position_ids'; see docs/extending.md"),
        (lambda: model_of(rows=39), "has 39 rows in its head; the tokenizer has 40 ids"),
        (lambda: model_of(vocab_size=41), "has 41 rows in its embedding; the tokenizer has 40 ids"),
        (lambda: model_of(SeesLater), "lets a position see later ones"),
        (lambda: model_of(max_position_embeddings=None), "has a config without max_position_embeddings"),
        (lambda: model_of(keeps=False), "is not rebuilt by its config: "),
        (lambda: model_of(forward=lambda self, input_ids, **_: CausalLMOutput()), "cannot be called: AttributeError"),
    ],
)
def test_a_model_that_would_fail_later_is_refused_before_training(model, words):
    with pytest.raises(UserError) as caught:
        check_custom_model(model(), VOCABULARY, packing=False)
    assert words in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_a_recurrent_network_is_taken_but_does_not_pack():
    assert check_custom_model(Gru(GruConfig()), VOCABULARY, packing=False).training
    with pytest.raises(UserError, match=r"mixes pairs that share a row: .* otherwise set data.packing=false"):
        check_custom_model(Gru(GruConfig()), VOCABULARY, packing=True)


@pytest.mark.parametrize("check", [True, False])
def test_a_model_without_a_cache_answers_as_its_logits_say(check):
    torch.manual_seed(0)
    model = Gru(GruConfig()).eval()
    prompts = [[1, 2, 3, 4, 5, 6], [7, 8], [9, 10, 11]]
    expected = []
    for prompt in prompts:
        ids = list(prompt)
        for _ in range(5):
            ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
        expected.append(ids[len(prompt) :])
    drafts = [Draft(prompt, ids[:3]) for prompt, ids in zip(prompts, expected, strict=True)]
    eos = min({*range(VOCABULARY)} - {id for ids in expected for id in ids})
    found = greedy_answers(model, drafts, eos, 5, check=check)
    assert [each.ids for each in found] == expected
    with pytest.raises(
        UserError, match=r"Gru cannot sample answers: let the class inherit from transformers.GenerationMixin"
    ):
        sample_answers(model, prompts, 0, 5, Sampling(temperature=1.0))


def test_a_subclass_of_a_transformer_keeps_its_cache():
    class Own(GPT2LMHeadModel):
        pass

    class Forgets(GPT2LMHeadModel):
        """Takes the cache, and looks at the new tokens alone."""

        def forward(self, input_ids, **unused):
            return super().forward(input_ids)

    config = GPT2Config(vocab_size=40, n_positions=32, n_embd=16, n_layer=1, n_head=2)
    assert continues_from_cache(Own(config))
    assert not continues_from_cache(Forgets(config))
    assert not continues_from_cache(Gru(GruConfig()))


@pytest.fixture
def registries():
    """What a test registers is forgotten after it."""
    readers, splits = dict(READERS), dict(SPLITS)
    yield
    for registry, kept in ((READERS, readers), (SPLITS, splits)):
        for name in {*registry} - {*kept}:
            del registry[name]


def faq(tmp_path):
    path = tmp_path / "pairs.faq"
    path.write_text("a=1\nb=2\nc=3\n")
    return DataConfig(path=str(path), split="shuffle", cache=str(tmp_path / "cache"))


def test_an_own_format_is_read_and_never_from_the_cache(tmp_path, registries):
    data = faq(tmp_path)
    with pytest.raises(UserError, match="the name must end in"):
        prepare(data, GPT2, 256)
    for ending in ("?", "!"):  # the second one replaces the first

        @qa_lm.register_format(".faq")
        def read(path, options, ending=ending):
            for line, text in enumerate(path.read_text(options.encoding).splitlines(), start=1):
                question, answer = text.split("=")
                yield line, {"question": question + ending, "answer": answer}

        found = prepare(data, GPT2, 256)
        table = found.table
        assert [pair.question for pair in table.pairs(range(3))] == [f"{each}{ending}" for each in "abc"]
        assert table.place(2).endswith("pairs.faq:3")
    assert not any(each.startswith("pairs/") for each in folders(tmp_path / "cache"))


def fails(path, options):
    yield 2, {"question": "a", "answer": "b"}
    raise KeyError("x")


def says_where(path, options):
    yield BadLine(3, "no question here")


@pytest.mark.parametrize(
    ("reader", "words"),
    [
        (fails, "pairs.faq: fails failed after line 2 with KeyError: 'x'"),
        (says_where, "pairs.faq:3: no question here"),
        (lambda path, options: iter(["a"]), "must yield (line, record), an int and a dict, not 'a'"),
        (lambda path, options: None, "failed with TypeError: 'NoneType' object is not iterable"),
    ],
)
def test_a_mistake_of_a_reader_is_one_line(tmp_path, registries, reader, words):
    qa_lm.register_format(".faq")(reader)
    with pytest.raises(UserError) as caught:
        prepare(faq(tmp_path), GPT2, 256)
    assert words in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("suffix", ["faq", ".FAQ", ".json", ".gz", ".ndjson"])
def test_a_suffix_that_cannot_be_registered(suffix):
    with pytest.raises(UserError, match="register_format"):
        qa_lm.register_format(suffix)


def split_of(tmp_path, function, **changes):
    qa_lm.register_split("own")(function)
    path = jsonl(tmp_path / "pairs.jsonl", [(f"q{i}", "a" * (i + 1)) for i in range(10)])
    return prepare(DataConfig(path=str(path), split="own", **changes), GPT2, 256)


def test_an_own_split_gives_a_mask_or_a_split(tmp_path, registries):
    def long_answers(pairs, seed, train_fraction):
        assert [pair.question for pair in pairs] == [f"q{i}" for i in range(10)]
        assert (seed, train_fraction) == (42, 0.8)
        return pairs.numbers("answer_characters") > 7

    by_mask = split_of(tmp_path, long_answers).split
    assert sorted(by_mask.validation) == [7, 8, 9]
    assert sorted(by_mask.train) == list(range(7))
    assert by_mask.train.tolist() != list(range(7))
    parts = Split(np.arange(5), np.arange(5, 8), np.arange(8, 10), np.zeros(3, np.int8))
    three = split_of(tmp_path, lambda pairs, seed, train_fraction: parts).split
    assert [side.tolist() for side in three] == [side.tolist() for side in parts]
    assert len(split_of(tmp_path, lambda *_: None, train_fraction=1.0).split.train) == 10


def nowhere(*sides):
    train, validation, test = map(np.array, sides)
    return lambda *_: Split(train, validation, test, np.zeros(len(validation), np.int8))


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (lambda *_: None, "must return a Split or a mask of the held-out pairs, bool of shape (10,), not NoneType"),
        (lambda *_: np.arange(10), "not int64 of shape (10,)"),
        (lambda *_: np.ones(10, bool), "holds out all pairs"),
        (lambda *_: np.zeros(10, bool), "holds out no pair; data.train_fraction=1.0 trains on all of them"),
        (lambda pairs: None, "failed with TypeError"),
        (nowhere([0, 1], [1], [3]), "a pair stands twice"),
        (nowhere([0, 1], [10], [3]), "its places must be from 0 to 9"),
        (nowhere([0.5], [1], [3]), "whole numbers"),
    ],
)
def test_a_mistake_of_a_split_is_one_line(tmp_path, registries, function, words):
    with pytest.raises(UserError) as caught:
        split_of(tmp_path, function)
    assert f"data.split=own: {words}" in str(caught.value) or words in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_an_unknown_split_is_said_before_anything_is_read():
    with pytest.raises(UserError, match=r"data.split=questoin: must be one of .*; did you mean question\?"):
        qa_lm.train(qa_lm.compose("data.split=questoin", "data.path=pairs.jsonl"))
    with pytest.raises(UserError, match="register_split\\('near'\\): is a split of qa_lm"):
        qa_lm.register_split("near")


def test_check_data_takes_own_splits_and_formats(tmp_path, registries, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    (tmp_path / "pairs.faq").write_text("a=1\nb=2\nc=3\n")
    (tmp_path / "mine.py").write_text(
        "import qa_lm\n"
        "@qa_lm.register_format('.faq')\n"
        "def read(path, options):\n"
        "    for line, text in enumerate(path.read_text().splitlines(), 1):\n"
        "        yield line, dict(zip(('question', 'answer'), text.split('=')))\n"
        "@qa_lm.register_split('first')\n"
        "def first(pairs, seed, train_fraction):\n"
        "    return pairs.numbers('line') == 1\n"
    )
    for split, code, words in (
        ("first", 2, "first: must be one of shuffle,"),
        ("frist", 2, "did you mean first?"),
        ("first", 0, "validation 1"),
    ):
        trust = [] if words.endswith(",") else ["--trust", "mine"]
        assert check_data.main(["pairs.faq", "--split", split, *trust]) == code
        printed = capsys.readouterr()
        assert words in printed.out + printed.err
        assert code == 0 or len(printed.err.splitlines()) == 1


def test_what_a_loss_and_an_optimizer_return_is_looked_at(tmp_path):
    with pytest.raises(UserError, match="loss: must return LossSums, not Tensor; change the result of .*batch_loss"):
        qa_lm.train(small_config(), tmp_path / "a", loss=lambda hidden, head, batch: hidden.sum())  # type: ignore[arg-type, return-value]
    with pytest.raises(UserError, match="optimizer: must return a torch.optim.Optimizer, not list"):
        qa_lm.train(small_config(), tmp_path / "b", optimizer=lambda model: [model])  # type: ignore[arg-type, return-value]


def test_sums_without_a_gradient_or_of_another_shape_are_refused():
    hidden, head = torch.zeros(1, 4, 8, requires_grad=True), nn.Linear(8, 5)
    ids, places = torch.zeros(1, 4, dtype=torch.int64), torch.arange(4)[None]
    batch = Batch(ids, ids, places, ids, torch.ones(1, 4, dtype=torch.bool), torch.zeros(1, dtype=torch.int64), 1, 4)
    sums = batch_loss(hidden, head, batch, mean_per_pair=True)
    assert checked_sums(sums, batch) is sums
    with pytest.raises(UserError, match="with a gradient"):
        checked_sums(sums._replace(loss=sums.loss.detach()), batch)
    with pytest.raises(UserError, match=r"pair_losses must have shape \(1,\)"):
        checked_sums(sums._replace(pair_losses=torch.zeros(3)), batch)
