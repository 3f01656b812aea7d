"""Folders of models from others: weights, configurations and tokenizers that bring code, or make no sense."""

import io
import json
import re
import shutil
import sys

import jinja2
import pytest
import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer

from qa_lm.data.tokenizer import load_tokenizer
from qa_lm.errors import UserError
from tests.faults.attacks.hostile import Trap, changed_json, copied, refused, trap
from tests.scripts_as_modules import ask, evaluate

__all__ = ["trap"]

QUESTION = "What is 2 + 2?"


@pytest.fixture
def model(small_run, tmp_path):
    return copied(small_run.folder / "model", tmp_path / "model")


@pytest.fixture
def modules(monkeypatch, tmp_path):
    """The folder where transformers puts trusted third-party code; here not the user's."""
    monkeypatch.setattr(transformers.dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr(sys, "path", list(sys.path))


def sound(folder, capsys):
    assert ask.main([str(folder), QUESTION]) == 0
    capsys.readouterr()


def test_weights_in_a_pickle(model, trap, capsys):
    sound(model, capsys)
    (model / "model.safetensors").unlink()
    torch.save({"lm_head.weight": trap}, model / "pytorch_model.bin")
    torch.load(model / "pytorch_model.bin", weights_only=False)
    assert trap.sprang
    assert "the model cannot be loaded" in refused(ask.main, [str(model), QUESTION], capsys)
    assert not trap.sprang


@pytest.mark.parametrize("name", ["evil.bin", "../evil.bin"])
def test_an_index_of_safetensors_that_leads_to_a_pickle(model, trap, capsys, name):
    (model / "model.safetensors").unlink()
    torch.save({"lm_head.weight": trap}, model / name)
    (model / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": {"transformer.wte.weight": name}})
    )
    torch.load(model / name, weights_only=False)
    assert trap.sprang
    assert "the model cannot be loaded" in refused(ask.main, [str(model), QUESTION], capsys)
    assert not trap.sprang


def test_a_pickle_that_is_called_safetensors(model, trap, capsys):
    torch.save({"lm_head.weight": trap}, model / "model.safetensors")
    torch.load(io.BytesIO((model / "model.safetensors").read_bytes()), weights_only=False)
    assert trap.sprang
    assert "the model cannot be loaded" in refused(ask.main, [str(model), QUESTION], capsys)
    assert not trap.sprang


REMOTE = "from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast\n" + "".join(
    f"class Evil{kind}({base}):\n    pass\n"
    for kind, base in (("Config", "GPT2Config"), ("Model", "GPT2LMHeadModel"), ("Tokenizer", "PreTrainedTokenizerFast"))
)


def unknown(model):
    """Change the program: transformers runs the same one but once in a process."""
    with (model / "evil.py").open("a") as file:
        file.write("# changed\n")


@pytest.mark.parametrize("kind", ["gpt2", "evil"])
def test_a_configuration_with_code_of_its_own(model, trap, capsys, modules, kind):
    (model / "evil.py").write_text(trap.code + REMOTE)
    changed_json(
        model / "config.json",
        model_type=kind,
        auto_map={"AutoConfig": "evil.EvilConfig", "AutoModelForCausalLM": "evil.EvilModel"},
    )
    with pytest.raises(ValueError, match="config_class"):  # by then it has run; so transformers remembers no class
        AutoModelForCausalLM.from_pretrained(model, trust_remote_code=True)
    assert trap.sprang
    unknown(model)
    if kind == "gpt2":  # transformers' own class is taken
        sound(model, capsys)
    else:
        assert "transformers has no model_type=evil" in refused(ask.main, [str(model), QUESTION], capsys)
    assert not trap.sprang


def test_a_tokenizer_with_code_of_its_own(model, trap, capsys, modules):
    (model / "evil.py").write_text(trap.code + REMOTE)
    changed_json(
        model / "tokenizer_config.json",
        tokenizer_class="EvilTokenizer",
        auto_map={"AutoTokenizer": [None, "evil.EvilTokenizer"]},
    )
    AutoTokenizer.from_pretrained(model, trust_remote_code=True)
    assert trap.sprang
    unknown(model)
    sound(model, capsys)  # tokenizer.json alone is read
    assert not trap.sprang
    (model / "prompt_template.json").unlink()  # a model of others, whose tokenizer transformers makes
    (model.parent / "faq.jsonl").write_text(json.dumps({"question": QUESTION, "answer": "4"}) + "\n")
    asked = [str(model), "--template", "{question}", f"data.path={model.parent / 'faq.jsonl'}"]
    evaluate.main([*asked, "--out", str(model.parent / "out")])
    assert not trap.sprang
    (model / "tokenizer.json").unlink()
    with pytest.raises(UserError, match="transformers cannot make one"):
        load_tokenizer(model)
    assert not trap.sprang


@pytest.mark.parametrize("key", ["attn_implementation", "_attn_implementation"])
def test_attention_by_a_program_of_the_hub(model, trap, capsys, monkeypatch, key):
    """transformers fetches and runs it where the package `kernels` is installed, without asking for trust."""

    def fetch(implementation, *arguments, **options):
        assert implementation == "kernels-community/evil"
        trap.marker.touch()
        raise ImportError("no network")

    monkeypatch.setattr(transformers.modeling_utils, "lazy_import_flash_attention", fetch)
    monkeypatch.setattr(transformers.modeling_utils, "is_kernels_available", lambda: True)
    changed_json(model / "config.json", **{key: "kernels-community/evil"})
    with pytest.raises(ImportError):
        AutoModelForCausalLM.from_pretrained(model, local_files_only=True, trust_remote_code=False)
    assert trap.sprang
    assert f"{key}=kernels-community/evil is refused: it would run third-party code" in refused(
        ask.main, [str(model), QUESTION], capsys
    )
    assert not trap.sprang


def test_a_chat_template_that_is_a_program(model, trap, capsys):
    template = "{{ cycler.__init__.__globals__.os.mknod('" + str(trap.marker) + "') }}"
    jinja2.Environment().from_string(template).render(messages=[])
    assert trap.sprang
    (model / "chat_template.jinja").write_text(template)
    (model / "prompt_template.json").unlink()
    (model.parent / "faq.jsonl").write_text(json.dumps({"question": QUESTION, "answer": "4"}) + "\n")
    asked = [str(model), "--template", "chat", f"data.path={model.parent / 'faq.jsonl'}"]
    assert "chat template cannot be used" in refused(evaluate.main, asked, capsys)
    assert not trap.sprang


NESTED = "[" * 100_000
MALFORMED = ["", "{", "null", "5", "[1]", NESTED, '{"a": 1}', '{"prompt": 5, "answer": 6}', "\x00\xff"]


@pytest.mark.parametrize("text", MALFORMED, ids=lambda text: ascii(text[:9]))
@pytest.mark.parametrize(
    "name", ["golden.json", "confidence.json", "prompt_template.json", "tokenizer.json", "tokenizer_config.json"]
)
def test_a_damaged_file_beside_the_model(model, capsys, name, text):
    (model / name).write_bytes(text.encode("latin-1"))
    assert str(model) in refused(ask.main, [str(model), QUESTION], capsys)


@pytest.mark.parametrize("ids", [5, "ab", [10**9], [-1], [None], [[1]], [1.5], [True], {"a": 1}], ids=str)
def test_golden_answers_that_are_no_ids(model, capsys, ids):
    (first, *_) = json.loads((model / "golden.json").read_text())
    (model / "golden.json").write_text(json.dumps([first | {"answer_ids": ids}]))
    assert "golden.json: is damaged: answer_ids must be ids" in refused(ask.main, [str(model), QUESTION], capsys)


CALIBRATION = {
    "method": "platt",
    "log_probabilities": [-1.0, 0.0],
    "probabilities": [0.1, 0.9],
    "fitted_on": {"validation": 40},
    "brier": 0.1,
    "curve": [{"threshold": 0.5, "coverage": 1.0, "precision": 0.9}],
}


@pytest.mark.parametrize(
    "change",
    [
        {"curve": []},
        {"curve": 5},
        {"curve": [{"threshold": 0.5}]},
        {"curve": [{"threshold": "a", "coverage": 1.0, "precision": 0.9}]},
        {"probabilities": [0.1]},
        {"probabilities": [0.1, 7.0]},
        {"probabilities": [0.1, None]},
        {"log_probabilities": [0.0, -1.0]},
        {"log_probabilities": [], "probabilities": []},
        {"log_probabilities": "ab"},
        {"brier": float("nan")},
    ],
    ids=str,
)
def test_a_calibration_that_makes_no_sense(model, capsys, change):
    (model / "confidence.json").write_text(json.dumps(CALIBRATION))
    sound(model, capsys)
    (model / "confidence.json").write_text(json.dumps(CALIBRATION | change))
    arguments = [str(model), QUESTION, "--precision", "0.5"]
    assert "confidence.json: is not a valid calibration" in refused(ask.main, arguments, capsys)


def gaps(content):
    content["model"]["vocab"] |= {"\u0100\u0101": 10**6}


def shifted(content):
    content["model"]["vocab"] = {text: id + 5 if id else 0 for text, id in content["model"]["vocab"].items()}


def without_unknown(content):
    content["model"] = {"type": "WordLevel", "vocab": {"<|endoftext|>": 0}, "unk_token": "?"}


def panicking(content):  # its Rust code raises what is no Exception
    content["normalizer"] = {"type": "Precompiled", "precompiled_charsmap": "AAAA"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (gaps, "vocabulary has 301 tokens, but ids up to 1,000,000"),
        (shifted, "the tokenizer has ids up to 304, but the model has 300 embeddings"),
        (without_unknown, "cannot read 'What is 2 \\+ 2\\?'"),
        (panicking, "no usable tokenizer.json"),
    ],
)
def test_a_tokenizer_that_makes_no_sense(model, capfd, change, message):
    content = json.loads((model / "tokenizer.json").read_text())
    change(content)
    (model / "tokenizer.json").write_text(json.dumps(content))
    capfd.readouterr()
    assert ask.main([str(model), QUESTION]) == 2
    said = capfd.readouterr().err
    assert "Traceback" not in said
    # Rust itself says that it panicked; our own line is the last.
    assert re.match(f"error: .*{message}", said.splitlines()[-1])


@pytest.mark.parametrize("changes", [{"n_layer": -1}, {"n_head": 0}, {"n_embd": "x"}, {"vocab_size": 7}], ids=str)
def test_a_configuration_that_makes_no_sense(model, capsys, changes):
    changed_json(model / "config.json", **changes)
    capsys.readouterr()
    assert ask.main([str(model), QUESTION]) == 2
    assert "error: " in capsys.readouterr().err


def test_a_link_to_a_model_is_a_model(model, tmp_path, capsys):
    """Reading follows links, as any program does; nothing is written there."""
    before = sorted(path.name for path in model.iterdir())
    (tmp_path / "linked").symlink_to(model)
    sound(tmp_path / "linked", capsys)
    assert sorted(path.name for path in model.iterdir()) == before
    shutil.rmtree(model)
    assert "no such folder" in refused(ask.main, [str(tmp_path / "linked"), QUESTION], capsys)


def test_the_payload_itself(tmp_path):
    """What the other tests rest on: the marker tells whether the payload ran."""
    payload = Trap(tmp_path)
    assert not payload.sprang
    exec(payload.code)
    assert payload.sprang
    assert not payload.sprang
