"""A run that starts from a pretrained model: all parameters or LoRA, its files, and what is refused."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from qa_lm.config.enums import FinetuneMethod
from qa_lm.config.overrides import compose
from qa_lm.config.schema import FinetuneConfig, ModelConfig, TrainConfig
from qa_lm.errors import UserError
from qa_lm.inference.answerer import Answerer, load_causal_lm
from qa_lm.modeling.causal_lm import parameter_count
from qa_lm.modeling.lora import INSTALL, trained_state
from qa_lm.run.checkpoint import read_checkpoint
from qa_lm.training.checkpointing.comparison import first_difference
from qa_lm.training.finetune import start
from qa_lm.training.finetune.start import find_start, with_start
from qa_lm.training.train import TrainingResult, train
from tests.conftest import small_config

PRETRAINED = ModelConfig(architecture=None, hidden_size=None, layers=None, heads=None, context=None)
PAIRS = [
    {"question": f"What is the colour of number {number}?", "answer": f"It is {name}."}
    for number, name in enumerate(("red", "blue", "green", "pink", "grey", "black"))
]


@pytest.fixture(scope="module")
def base(learnt_run: TrainingResult) -> Path:
    """A tiny pretrained model: it knows the tutorial's pairs."""
    return learnt_run.folder / "model"


def finetune_config(base: Path, pairs: Path, **changes: object) -> TrainConfig:
    config = small_config(
        model=ModelConfig(**(vars(PRETRAINED) | {"path": str(base)})), trainer__max_epochs=12, ledger=False
    )
    config.data.path, config.data.train_fraction, config.optimizer.lr = str(pairs), 0.9, 1e-2
    config.finetune = FinetuneConfig(rank=4, alpha=8)
    for key, value in changes.items():
        node, _, name = key.partition("__")
        setattr(getattr(config, node) if name else config, name or node, value)
    return config


@pytest.fixture(scope="module")
def lora_run(base: Path, pairs: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainingResult:
    config = finetune_config(base, pairs, finetune__method=FinetuneMethod.lora, finetune__dropout=0.1)
    return train(config, tmp_path_factory.mktemp("lora"))


def test_all_parameters_are_trained_by_default(base, pairs, tmp_path, capsys):
    result = train(finetune_config(base, pairs), tmp_path / "run")
    said = capsys.readouterr().out
    assert f"model: gpt2 pretrained ({base}), 0.1 million parameters (width 64, 2 layers)" in said
    assert "finetuning: all parameters (the default up to 200 million parameters)" in said
    before, after = (load_file(folder / "model.safetensors") for folder in (base, result.folder / "model"))
    assert before.keys() == after.keys()
    assert all(not torch.equal(before[name], after[name]) for name in before if name.endswith("weight"))
    assert result.metrics["final_train_loss"] < 1
    assert not (result.folder / "adapter").exists()


def test_a_run_without_steps_has_the_weights_and_ids_of_the_pretrained_model(base, pairs, tmp_path):
    config = finetune_config(base, pairs)
    config.trainer["max_epochs"] = 0
    result = train(config, tmp_path / "run")
    before, after = (load_file(folder / "model.safetensors") for folder in (base, result.folder / "model"))
    assert all(torch.equal(before[name], after[name]) for name in before)
    texts = [pair["question"] for pair in PAIRS]
    encoded = [Answerer.load(folder).tokenizer.encode(texts) for folder in (base, result.folder)]
    assert encoded[0] == encoded[1]


def test_lora_trains_and_saves_only_the_adapter(base, lora_run):
    checkpoint = read_checkpoint(lora_run.folder / "checkpoints" / "last.ckpt")
    names = checkpoint["state_dict"]
    assert names
    assert all(".lora_" in name for name in names)
    assert lora_run.metrics["final_train_loss"] < 3
    adapter = load_file(lora_run.folder / "adapter" / "adapter_model.safetensors")
    assert sum(value.numel() for value in names.values()) == sum(value.numel() for value in adapter.values())
    settings = json.loads((lora_run.folder / "adapter" / "adapter_config.json").read_text())
    assert (settings["r"], settings["lora_alpha"], settings["base_model_name_or_path"]) == (4, 8, str(base))


def test_the_merged_model_is_the_pretrained_model_with_its_adapter(base, lora_run):
    """As anyone would load it with peft, which knows nothing of qa_lm."""
    from peft import PeftModel

    merged = load_causal_lm(lora_run.folder / "model").eval()
    adapted = PeftModel.from_pretrained(load_causal_lm(base), str(lora_run.folder / "adapter")).eval()
    ids = torch.arange(40).view(2, 20)
    with torch.no_grad():
        ours, theirs = merged(input_ids=ids).logits, adapted(input_ids=ids).logits
    assert torch.allclose(ours, theirs, atol=1e-5)
    assert torch.equal(ours.argmax(-1), theirs.argmax(-1))
    plain = load_causal_lm(base).eval()
    with torch.no_grad():
        assert not torch.allclose(ours, plain(input_ids=ids).logits, atol=1e-2)


@pytest.mark.parametrize("method", list(FinetuneMethod))
def test_an_interrupted_run_resumes_exactly(base, pairs, tmp_path, method):
    config = finetune_config(base, pairs, finetune__method=method, finetune__dropout=0.1)
    config.checkpoint.every_seconds = None
    config.trainer["max_epochs"] = 4
    whole = train(config, tmp_path / "whole").folder
    config.trainer["max_epochs"] = 2
    train(config, tmp_path / "parts")
    config.trainer["max_epochs"], config.resume = 4, str(tmp_path / "parts")
    parts = train(config, tmp_path / "parts").folder
    one, other = (read_checkpoint(folder / "checkpoints" / "last.ckpt")["state_dict"] for folder in (whole, parts))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert first_difference(whole, whole) is None


def test_another_pretrained_model_is_refused_on_resume(base, pairs, tmp_path):
    own = tmp_path / "base"
    shutil.copytree(base, own)
    config = finetune_config(own, pairs)
    config.trainer["max_epochs"] = 1
    train(config, tmp_path / "run")
    weights = load_file(own / "model.safetensors")
    weights["transformer.ln_f.weight"] += 1
    save_file(weights, own / "model.safetensors", {"format": "pt"})
    config.resume, config.trainer["max_epochs"] = str(tmp_path / "run"), 2
    with pytest.raises(UserError, match="the pretrained model has changed since this run started"):
        train(config, tmp_path / "run")


def test_a_large_model_is_trained_by_lora(base, pairs, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(start, "FULL_UP_TO", 1000)
    config = finetune_config(base, pairs)
    config.trainer["max_epochs"] = 1
    train(config, tmp_path / "run")
    assert "finetuning: LoRA of rank 4, 0.0 million parameters trained (the default above" in capsys.readouterr().out


def test_bfloat16_weights_and_gradient_checkpointing(base, pairs, tmp_path):
    config = finetune_config(base, pairs, model__gradient_checkpointing=True)
    config.trainer |= {"precision": "bf16-true", "max_epochs": 2}
    result = train(config, tmp_path / "run")
    saved = load_file(result.folder / "model" / "model.safetensors")
    assert {value.dtype for value in saved.values()} == {torch.float32}


def test_frozen_parameters_are_not_trained_counted_or_saved(base, pairs):
    from qa_lm.modeling.lora import LoraSettings, add_lora
    from qa_lm.modeling.optimizers import OptimizerSettings

    model = load_causal_lm(base)
    everything = parameter_count(model)
    add_lora(model, LoraSettings(2, 4, 0.0, False, "all-linear"))
    trained = parameter_count(model, trained=True)
    assert 0 < trained < everything / 5
    for kind in ("adamw", "muon"):
        optimizer = OptimizerSettings(1e-3, kind)(model)
        assert sum(each.numel() for group in optimizer.param_groups for each in group["params"]) == trained
    assert sum(each.numel() for each in trained_state(model).values()) == trained


def broken_copy(base: Path, folder: Path, change: str) -> Path:
    shutil.copytree(base, folder)
    weights, config = folder / "model.safetensors", folder / "config.json"
    content = json.loads(config.read_text())
    match change:
        case "no weights":
            weights.rename(folder / "pytorch_model.bin")
        case "cut":
            weights.write_bytes(weights.read_bytes()[:2000])
        case "lacks":
            state = load_file(weights)
            del state["transformer.ln_f.weight"]
            save_file(state, weights, {"format": "pt"})
        case "quantised":
            config.write_text(json.dumps(content | {"quantization_config": {"quant_method": "bitsandbytes"}}))
        case "unknown":
            config.write_text(json.dumps(content | {"model_type": "own_model"}))
        case "no tokenizer":
            for file in folder.glob("tokenizer*"):
                file.unlink()
        case "larger tokenizer":
            tokenizer = json.loads((folder / "tokenizer.json").read_text())
            tokenizer["added_tokens"].append(tokenizer["added_tokens"][0] | {"id": 300, "content": "<more>"})
            (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    return folder


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("no weights", r"holds no weights as safetensors \(only pytorch_model.bin\)"),
        ("cut", "is damaged"),
        ("lacks", "its weights lack transformer.ln_f.weight"),
        ("quantised", "is quantised and cannot be trained"),
        ("unknown", "own_model"),
        ("no tokenizer", "tokenizer"),
        ("larger tokenizer", "the tokenizer has ids up to 300, but the model has 300 embeddings"),
    ],
)
def test_a_wrong_model_is_refused_in_a_line(base, pairs, tmp_path, change, said):
    config = finetune_config(broken_copy(base, tmp_path / "base", change), pairs)
    with pytest.raises(UserError, match=said) as caught:
        train(config, tmp_path / "run")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run" / "config.yaml").exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model__layers": 7}, "model.layers=7: the pretrained model has 2; leave it out"),
        ({"model__context": 999}, "model.context=999: the pretrained model has 256"),
        ({"model__revision": "v1"}, "model.revision=v1: has no effect here"),
        ({"finetune__rank": 0}, "finetune.rank=0: must be at least 1"),
        ({"finetune__average": 0.0}, "finetune.average=0.0: must be above 0 and at most 1"),
        ({"finetune__average": 0.5, "finetune__dora": True}, "finetune.average=0.5: must be 1 with finetune.dora"),
        (
            {"finetune__method": FinetuneMethod.lora, "finetune__target_modules": ["q_prj"]},
            "finetune.target_modules=.*q_prj.*linear layers of this model: .*c_attn",
        ),
    ],
)
def test_wrong_settings_are_refused_in_a_line(base, pairs, tmp_path, changes, said):
    with pytest.raises(UserError, match=said):
        train(finetune_config(base, pairs, **changes), tmp_path / "run")


def test_settings_of_a_pretrained_model_need_one(tmp_path):
    config = small_config(finetune=FinetuneConfig(method=FinetuneMethod.lora))
    with pytest.raises(UserError, match="finetune.method=lora: has no effect here: it belongs to a pretrained model"):
        train(config, tmp_path)


def test_without_peft_lora_says_how_to_install_it(base, pairs, tmp_path, monkeypatch):
    monkeypatch.setattr("qa_lm.modeling.lora.find_spec", lambda name: None)
    config = finetune_config(base, pairs, finetune__method=FinetuneMethod.lora)
    with pytest.raises(UserError) as caught:
        train(config, tmp_path / "run")
    assert str(caught.value) == INSTALL


@pytest.mark.parametrize("place", ["nobody/nothing", "./nothing", "nothing.gguf", "/no/such/folder"])
def test_a_model_that_is_nowhere(place, pairs, tmp_path):
    with pytest.raises(UserError, match=f"model.path={place}: no such folder"):
        find_start(finetune_config(Path(place), pairs) if place[0] == "/" else _at(place, pairs))


def _at(place: str, pairs: Path) -> TrainConfig:
    config = finetune_config(pairs, pairs)
    config.model.path = place
    return config


def test_the_settings_name_the_sizes_of_the_model(base, pairs):
    config = finetune_config(base, pairs)
    start = find_start(config)
    assert start
    model = with_start(config, start).model
    assert (model.architecture, model.hidden_size, model.layers, model.heads, model.context) == ("gpt2", 64, 2, 2, 256)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (
            ["model=pretrained"],
            "model.path=null: name the pretrained model: a folder, a name on the hub",
        ),
        (["experiment=finetune", "data.path=x.jsonl"], "model.path=null: name the pretrained model"),
        (
            ["model=pretrained", "model.path=x", "tokenizer=bpe"],
            "tokenizer=bpe: has no effect here",
        ),
        (
            ["model=pretrained", "model.path=x", "tokenizer.vocab_size=300"],
            "tokenizer.vocab_size=300: has no effect",
        ),
    ],
)
def test_settings_that_a_pretrained_model_rules_out(overrides, said):
    with pytest.raises(UserError) as caught:
        compose(*overrides)
    assert said in str(caught.value)
