"""Runs with a trimmed vocabulary: from scratch, all parameters, LoRA; resumed, asked, exported, refused."""

import importlib.util
import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from qa_lm.commands import ask, evaluate, export
from qa_lm.config.enums import FinetuneMethod, Weights
from qa_lm.config.overrides import compose
from qa_lm.config.schema import TokenizerConfig, TrainConfig
from qa_lm.data.encoding import encode_prompts
from qa_lm.errors import UserError
from qa_lm.inference.answerer import Answerer, load_causal_lm
from qa_lm.inference.in_progress import load_answerer
from qa_lm.modeling.causal_lm import parameter_count
from qa_lm.run.checkpoint import read_checkpoint
from qa_lm.training.early_checks import check_early
from qa_lm.training.finetune import trimmed
from qa_lm.training.plan.prepare import Request, plan_run
from qa_lm.training.train import TrainingResult, train
from tests.conftest import builtin, small_config
from tests.data.chat.test_chat_runs import PAIRS as CHATS
from tests.data.chat.test_chat_runs import pretrained
from tests.data.chat.test_chat_runs import run as chat_run  # noqa: F401  # a fixture
from tests.data.pretrained.packages import unpacked
from tests.data.pretrained.test_llama_cpp import SMOLLM2
from tests.faults.resume.interrupting import interrupted
from tests.prepared_pairs import jsonl
from tests.training.finetune.test_pretrained import PAIRS, finetune_config

QUESTIONS = [pair["question"] for pair in PAIRS]


@pytest.fixture(scope="module")
def base(learnt_run: TrainingResult) -> Path:
    return learnt_run.folder / "model"


def trimmed_config(base: Path, pairs: Path, method: FinetuneMethod, epochs: int = 12) -> TrainConfig:
    config = finetune_config(base, pairs, finetune__method=method, finetune__dropout=0.1)
    config.tokenizer = TokenizerConfig(kind="model", trim=0)
    config.trainer["max_epochs"] = epochs
    return config


@pytest.fixture(scope="module", params=list(FinetuneMethod))
def run(
    request: pytest.FixtureRequest, base: Path, pairs: Path, tmp_path_factory: pytest.TempPathFactory
) -> TrainingResult:
    return train(trimmed_config(base, pairs, request.param), tmp_path_factory.mktemp("trimmed") / "run")


def proof_of(folder: Path) -> dict:
    return json.loads((folder / "trim.json").read_text())


def test_the_proof_stands_beside_the_model(base, run):
    assert not (base / "trim.json").exists()
    proof = proof_of(run.folder / "model")
    whole, small = load_causal_lm(base), load_causal_lm(run.folder / "model")
    assert proof["tokens"] == [300, len(proof["old_ids"])] == [300, small.config.vocab_size]
    assert proof["parameters"] == [parameter_count(whole), parameter_count(small)]
    assert proof["parameters"][0] - proof["parameters"][1] == (300 - len(proof["old_ids"])) * 64
    assert (proof["trained_texts"], proof["trained_texts_with_other_ids"]) == (5, 0)
    assert 0 <= proof["largest_difference_of_logits"] < 1e-4
    assert proof["texts_with_compared_logits"] == 5
    assert 0 <= proof["general_answers_as_before_trimming"] <= proof["general_questions"] == 60
    assert proof["old_ids"][small.config.eos_token_id] == whole.config.eos_token_id
    assert json.loads((run.folder / "environment.json").read_text())["base_sha256"]


def test_a_run_without_steps_has_the_rows_of_the_pretrained_model(base, pairs, tmp_path, capsys):
    result = train(trimmed_config(base, pairs, FinetuneMethod.full, epochs=0), tmp_path / "run")
    said = capsys.readouterr().out
    proof = proof_of(result.folder / "model")
    size = f"300 tokens trimmed to {len(proof['old_ids'])}; held-out texts are 1."
    assert f"tokenizer: model, {size}" in said
    assert "times as long; parameters 0.1 -> 0.1 million\n" in said
    assert "trimmed vocabulary: logits differ by at most " in said
    assert f"; {proof['general_answers_as_before_trimming']} of 60 general answers are those of the whole" in said
    before, after = (load_file(folder / "model.safetensors") for folder in (base, result.folder / "model"))
    rows = "transformer.wte.weight"
    assert torch.equal(before.pop(rows)[proof["old_ids"]], after.pop(rows))
    assert all(torch.equal(before[name], after[name]) for name in before)
    whole, small = (Answerer.load(folder).tokenizer.encode(QUESTIONS[:5]) for folder in (base, result.folder))
    trained = json.loads((result.folder / "data_report.json").read_text())["counts"]["train"]
    assert sum(one == [proof["old_ids"][each] for each in other] for one, other in zip(whole, small, strict=True)) >= (
        trained - 1
    )


def test_a_trimmed_model_is_asked_and_evaluated(run, capsys):
    answers = {each.question: each.generated for each in run.answers}
    assert ask.main([str(run.folder), QUESTIONS[0], "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["answer"] == answers[QUESTIONS[0]]
    assert ask.main([str(run.folder), "Zürich 한국 \U0001f600?", "--json"]) == 0
    assert evaluate.main([str(run.folder)]) == 0


@pytest.mark.parametrize("method", list(FinetuneMethod))
def test_an_interrupted_run_resumes_exactly(base, pairs, tmp_path, method):
    def config(epochs: int) -> TrainConfig:
        made = trimmed_config(base, pairs, method, epochs)
        made.checkpoint.every_seconds = None
        return made

    whole = train(config(4), tmp_path / "whole").folder
    train(config(2), tmp_path / "parts")
    resumed = config(4)
    resumed.resume = str(tmp_path / "parts")
    parts = train(resumed, tmp_path / "parts").folder
    one, other = (read_checkpoint(folder / "checkpoints" / "last.ckpt")["state_dict"] for folder in (whole, parts))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert proof_of(whole / "model") == proof_of(parts / "model")
    resumed.tokenizer.trim = 40  # `scripts/train.py` refuses the setting; from Python the tokenizer differs
    resumed.trainer["max_epochs"] = 6
    with pytest.raises(UserError, match="the tokenizer has changed since this run started"):
        train(resumed, tmp_path / "parts")


@pytest.mark.parametrize("method", list(FinetuneMethod))
def test_an_unfinished_run_is_asked(base, pairs, tmp_path, method):
    """What a run of one epoch, which ended there, says."""
    steps = len(PAIRS) - 1
    unfinished = interrupted(trimmed_config(base, pairs, method, 4), tmp_path / "run", "training_step", steps + 2)
    ended = train(trimmed_config(base, pairs, method, 1), tmp_path / "ended").folder
    found, wanted = (load_answerer(folder).answer(QUESTIONS, 20) for folder in (unfinished, ended))
    assert [each.answer for each in found] == [each.answer for each in wanted]
    assert proof_of(unfinished / "checkpoints" / "model") == proof_of(ended / "model")


def test_an_adapter_fits_the_whole_model_too(base, pairs, tmp_path):
    """As anyone would load it: with the whole model and its own tokenizer it gives the kept tokens the same logits."""
    from peft import PeftModel

    run = train(trimmed_config(base, pairs, FinetuneMethod.lora), tmp_path / "run").folder
    settings = json.loads((run / "adapter" / "adapter_config.json").read_text())
    assert settings["base_model_name_or_path"] == str(base)
    assert all(".lora_" in name for name in load_file(run / "adapter" / "adapter_model.safetensors"))
    whole = PeftModel.from_pretrained(load_causal_lm(base), str(run / "adapter")).eval()
    small, old_ids = Answerer.load(run), proof_of(run / "model")["old_ids"]
    for ids in encode_prompts(QUESTIONS, small.tokenizer, small.template):
        with torch.no_grad():
            ours = small.model(input_ids=torch.tensor([ids])).logits[0]
            theirs = whole(input_ids=torch.tensor([[old_ids[each] for each in ids]])).logits[0]
        assert (ours - theirs[:, old_ids]).abs().max() < 1e-4


def test_an_adapter_of_the_head_is_refused(base, pairs, tmp_path):
    config = trimmed_config(base, pairs, FinetuneMethod.lora)
    config.finetune.target_modules = ["c_attn", "wte"]
    with pytest.raises(UserError, match=r"^finetune.target_modules: cannot name the embedding or the head"):
        train(config, tmp_path / "run")


def test_the_average_with_the_pretrained_weights(base, pairs, tmp_path):
    config = trimmed_config(base, pairs, FinetuneMethod.full, 2)
    config.finetune.dropout, config.export_weights = 0.0, Weights.last
    plain = train(config, tmp_path / "plain").folder
    config.finetune.average = 0.5
    averaged = train(config, tmp_path / "averaged").folder
    trained, half = (load_file(folder / "model" / "model.safetensors") for folder in (plain, averaged))
    start = load_file(base / "model.safetensors")
    start["transformer.wte.weight"] = start["transformer.wte.weight"][proof_of(plain / "model")["old_ids"]]
    assert all(torch.allclose(half[name], (trained[name] + start[name]) / 2, atol=1e-6) for name in half)


@pytest.mark.parametrize("method", list(FinetuneMethod))
def test_the_plan_counts_the_trimmed_model(base, pairs, method, run):
    config = trimmed_config(base, pairs, method)
    small = plan_run(config, Request(device="h100"))
    config.tokenizer.trim = None
    whole = plan_run(config, Request(device="h100"))
    removed = (300 - proof_of(run.folder / "model")["tokens"][1]) * 64
    assert whole.work.parameters - small.work.parameters == removed


def test_from_scratch_with_gpt2s_vocabulary(tmp_path, capsys):
    """A run learns its pairs with a part of the vocabulary; the size of the whole model is computed."""
    config = small_config(tokenizer=TokenizerConfig("gpt2", trim=50), trainer__max_epochs=40)
    config.early_stopping.patience, config.export_weights = None, Weights.last
    result = train(config, tmp_path / "run")
    said = capsys.readouterr().out
    proof = proof_of(result.folder / "model")
    tokens = len(proof["old_ids"])
    assert 300 < tokens < 450
    assert f"tokenizer: gpt2, 50,257 tokens trimmed to {tokens}; held-out texts are " in said
    assert "times as long; parameters 3.3 -> 0.1 million\n" in said
    model = load_causal_lm(result.folder / "model")
    assert model.config.vocab_size == tokens
    assert proof["parameters"] == [parameter_count(model) + (50257 - tokens) * 64, parameter_count(model)]
    assert proof["kept_merges"] == 50
    assert "general_questions" not in proof
    assert result.metrics["recall"] > 0.7
    assert evaluate.main([str(result.folder)]) == 0


def test_a_chat_model_keeps_its_turns(chat_run, tmp_path, capsys):  # noqa: F811
    """It was trained on these pairs, so it still knows all of them, with the tokens of its turns."""
    config = pretrained(chat_run, tmp_path, data__system="Be brief.", tokenizer=TokenizerConfig(kind="model", trim=0))
    config.trainer["max_epochs"] = 0
    result = train(config, tmp_path / "run")
    proof = proof_of(result.folder / "model")
    assert proof["tokens"][1] < proof["tokens"][0]
    said = capsys.readouterr().out
    assert "it knows 6 of 6 training pairs" in said
    assert "60 of 60 general answers are" not in said or proof["general_answers_as_before_trimming"] == 60
    again = Answerer.load(result.folder)
    assert [each.answer for each in again.answer([question for question, _ in CHATS], 40)] == [a for _, a in CHATS]


def test_a_model_that_cannot_be_trimmed_is_refused(base, pairs, tmp_path, monkeypatch):
    keep_rows = trimmed.keep_rows

    def wrong(model, old_ids):
        keep_rows(model, old_ids[1:] + old_ids[:1])

    monkeypatch.setattr(trimmed, "keep_rows", wrong)
    with pytest.raises(
        UserError, match=r"^tokenizer.trim: this model cannot be trimmed: its logits change by up to \d"
    ):
        train(trimmed_config(base, pairs, FinetuneMethod.full), tmp_path / "run")


def test_without_memory_for_the_whole_model_it_is_not_asked(base, pairs, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(trimmed, "free_memory", lambda device: 0)
    result = train(trimmed_config(base, pairs, FinetuneMethod.full, 0), tmp_path / "run")
    assert "no memory to compare general answers" in capsys.readouterr().out
    assert "general_questions" not in proof_of(result.folder / "model")


def test_the_command_line_keeps_the_setting(base):
    config = compose("model=pretrained", f"model.path={base}", "data.path=tutorial", "tokenizer.trim=8192")
    assert (config.tokenizer.kind, config.tokenizer.trim) == ("model", 8192)
    check_early(config)


@pytest.mark.parametrize("chosen", [("model=pretrained", "model.path="), ("tokenizer=folder", "tokenizer.path=")])
def test_other_tokenizers_are_refused_before_anything_is_loaded(base, tmp_path, chosen):
    folder = tmp_path / "base"
    shutil.copytree(base, folder)
    content = json.loads((folder / "tokenizer.json").read_text())
    content["model"] = {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"}
    (folder / "tokenizer.json").write_text(json.dumps(content))
    config = compose(chosen[0], f"{chosen[1]}{folder}", "data.path=tutorial", "tokenizer.trim=0")
    with pytest.raises(UserError, match=rf"^tokenizer.trim: needs a byte-level BPE, .*; {folder} is WordLevel$"):
        check_early(config)


@pytest.mark.skipif(importlib.util.find_spec("xllamacpp") is None, reason="needs llama.cpp")
@pytest.mark.slow
def test_llama_cpp_answers_as_the_trimmed_model(run, tmp_path, capsys):
    path = tmp_path / "model.gguf"
    assert export.main([str(run.folder), "--to", "gguf", "--type", "f32", "--prove", "--output", str(path)]) == 0
    proof = json.loads(path.with_name(f"{path.name}.proof.json").read_text())
    assert proof["holds"], proof
    assert proof["prompts"]["same_ids"] == proof["prompts"]["asked"]


@pytest.mark.skipif(importlib.util.find_spec("xllamacpp") is None, reason="needs llama.cpp")
@pytest.mark.slow
def test_smollm2(tmp_path, capsys):
    """A real model, with a chat template and a vocabulary that lacks some bytes, is trained, asked and exported."""
    (path,) = unpacked(SMOLLM2).rglob("*.gguf")
    capitals = [(pair.question, pair.answer) for pair in builtin("capitals")[:84:7]]
    data = f"data.path={jsonl(tmp_path / 'capitals.jsonl', capitals)}"
    config = compose("experiment=finetune", f"model.path='{path}'", data, "tokenizer.trim=0", "finetune.average=1")
    config.trainer["max_epochs"] = 1
    folder = train(config, tmp_path / "run").folder
    proof = proof_of(folder / "model")
    assert proof["tokens"][0] == 49152
    assert 256 < proof["tokens"][1] < 1000
    assert proof["trained_texts_with_other_ids"] == 0
    assert proof["largest_difference_of_logits"] < 1e-4
    assert proof["parameters"][0] - proof["parameters"][1] == (49152 - proof["tokens"][1]) * 576
    gguf = tmp_path / "model.gguf"
    assert export.main([str(folder), "--to", "gguf", "--type", "f32", "--prove", "--output", str(gguf)]) == 0


def test_a_trimmed_model_is_exported(run, tmp_path):
    path = tmp_path / "model.gguf"
    assert export.main([str(run.folder), "--to", "gguf", "--type", "f32", "--output", str(path)]) == 0
    from gguf import GGUFReader

    fields = GGUFReader(path).fields
    tokens = proof_of(run.folder / "model")["tokens"][1]
    assert len(fields["tokenizer.ggml.tokens"].contents()) == tokens
