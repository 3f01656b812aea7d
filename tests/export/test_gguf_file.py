"""A GGUF file has the weights, ids and prompt of its model; what llama.cpp does not compute is one line."""

import json
import re

import gguf
import numpy as np
import pytest
import torch
from tokenizers import AddedToken, pre_tokenizers
from tokenizers.normalizers import NFC, NFKC
from transformers import AutoModelForCausalLM

from qa_lm.commands import export
from qa_lm.data.encoding import PromptTemplate
from qa_lm.data.pretrained.gguf_file import gguf_folder
from qa_lm.data.pretrained.gguf_tokenizer import PRE_TOKENIZERS, pre_tokenizer_name
from qa_lm.data.pretrained.gguf_weights import LLAMA3_ROPE
from qa_lm.data.tokenizer import load_tokenizer
from qa_lm.errors import UserError
from qa_lm.export.gguf_file import write_gguf
from qa_lm.export.gguf_tokens import HIDDEN
from qa_lm.export.gguf_types import GgufType
from tests.data.pretrained.gguf_writing import EOS, SIZES, TEXTS, TURN, tiny_tokenizer
from tests.export.model_folders import changed_json, model_folder_of, source_of

IDS = torch.arange(40)[None] * 13 % 600
PROMPT = PromptTemplate('Q: {{"{question}"}}\n\\A:', " {answer}")


def logits(model):
    with torch.inference_mode():
        return model(input_ids=IDS).logits


def fields_of(path):
    return {name: field.contents() for name, field in gguf.GGUFReader(path).fields.items()}


@pytest.mark.parametrize(
    ("architecture", "changes"),
    [
        *((each, {}) for each in SIZES),
        ("gpt2", {"tie_word_embeddings": False, "n_inner": 40}),
        ("llama", {"head_dim": 16, "tie_word_embeddings": False}),
        ("llama", {"rope_parameters": LLAMA3_ROPE | {"rope_type": "llama3", "factor": 8.0, "rope_theta": 5e5}}),
    ],
)
def test_a_file_has_the_logits_and_ids_of_its_model(tmp_path, architecture, changes):
    """Read by transformers, whose reader knows nothing of this writer."""
    source = source_of(tmp_path / "model", architecture, **changes)
    file = write_gguf(source, tmp_path / "tiny.gguf", GgufType.f32)
    assert (file.kept, set(file.formats)) == (0, {"f32"})
    folder = gguf_folder(file.path, tmp_path / "cache")
    read = AutoModelForCausalLM.from_pretrained(folder).eval()
    torch.testing.assert_close(logits(read), logits(source.answerer.model), atol=1e-4, rtol=0)
    tied = source.answerer.model.config.tie_word_embeddings
    assert (read.get_output_embeddings().weight is read.get_input_embeddings().weight) == tied
    assert load_tokenizer(folder).encode(TEXTS) == source.answerer.tokenizer.encode(TEXTS)


@pytest.mark.parametrize("kind", GgufType)
def test_every_number_format(tmp_path, kind):
    """Rows of 32 numbers are quantised; those of the second matrix of a block have 48 and stay in 16 bits."""
    source = source_of(tmp_path / "model")
    file = write_gguf(source, tmp_path / "tiny.gguf", kind)
    tensors = {each.name: each for each in gguf.GGUFReader(file.path).tensors}
    found = {name: tensors[name].tensor_type.name.lower() for name in tensors}
    quantised = kind in ("q8_0", "q4_0")
    assert found["blk.0.attn_norm.weight"] == "f32"
    assert found["blk.1.attn_q.weight"] == kind
    assert found["token_embd.weight"] == ("q8_0" if quantised else kind)
    assert found["blk.0.ffn_down.weight"] == ("f16" if quantised else kind)
    assert file.kept == (2 if quantised else 0)
    assert fields_of(file.path)["general.file_type"] == {"f32": 0, "f16": 1, "q4_0": 2, "q8_0": 7}[kind]
    wanted = source.answerer.model.model.embed_tokens.weight.detach().numpy()
    values = gguf.quants.dequantize(tensors["token_embd.weight"].data, tensors["token_embd.weight"].tensor_type)
    np.testing.assert_allclose(values, wanted, atol={"f32": 0, "f16": 1e-3}.get(kind, 5e-3))


def test_what_llama_cpp_reads_in_32_bits_only_counts_not_as_kept(tmp_path):
    file = write_gguf(source_of(tmp_path / "model", "gpt2"), tmp_path / "tiny.gguf", GgufType.q8_0)
    types = {each.name: each.tensor_type.name for each in gguf.GGUFReader(file.path).tensors}
    assert types["position_embd.weight"] == "F32"
    assert file.kept == list(types.values()).count("F16")


def test_a_full_disk_is_named_with_the_file_and_leaves_nothing(tmp_path, monkeypatch):
    source = source_of(tmp_path / "model")

    def short(self, **options):
        raise OSError("311616 requested and 249800 written")  # as numpy says it

    monkeypatch.setattr(gguf.GGUFWriter, "write_tensors_to_file", short)
    with pytest.raises(OSError, match="No space left on device") as caught:
        write_gguf(source, tmp_path / "tiny.gguf", GgufType.f32)
    assert caught.value.filename == str(tmp_path / "tiny.gguf")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_weight_too_large_for_16_bits_stays_in_32(tmp_path):
    source = source_of(tmp_path / "model")
    with torch.no_grad():
        source.answerer.model.model.embed_tokens.weight[3, 5] = 1e5
    file = write_gguf(source, tmp_path / "tiny.gguf", GgufType.f16)
    assert file.formats["f32"] == 1


def test_special_tokens_have_names_that_nobody_types(tmp_path):
    source = source_of(tmp_path / "model")
    file = write_gguf(source, tmp_path / "tiny.gguf", GgufType.f32)
    fields = fields_of(file.path)
    tokens, types = fields["tokenizer.ggml.tokens"], fields["tokenizer.ggml.token_type"]
    assert tokens[:2] == [f"{HIDDEN}{EOS}{HIDDEN}", f"{HIDDEN}{TURN}{HIDDEN}"]
    assert types[:2] == [3, 3]
    assert types[source.answerer.tokenizer.id_of("<tool>")] == 4
    assert (tokens[-1], types[-1]) == (f"{HIDDEN}unused 599{HIDDEN}", 5) if types[-1] == 5 else True
    assert len(tokens) == len(set(tokens)) == 600
    assert (fields["tokenizer.ggml.eos_token_id"], fields["tokenizer.ggml.add_bos_token"]) == (0, False)
    assert (fields["general.sampling.temp"], fields["general.sampling.top_k"]) == (0.0, 1)
    assert EOS in json.loads((tmp_path / "model" / "tokenizer.json").read_text())["model"]["vocab"]


def test_the_prompt_is_a_chat_template_and_a_modelfile(tmp_path):
    source = source_of(tmp_path / "model", template=PROMPT)
    file = write_gguf(source, tmp_path / "tiny.gguf", GgufType.q8_0)
    assert fields_of(file.path)["tokenizer.chat_template"] == (tmp_path / "model/chat_template.jinja").read_text()
    lines = (tmp_path / "Modelfile").read_text()
    assert lines.startswith('FROM ./tiny.gguf\nTEMPLATE """Q: ')
    (text,) = re.findall(r'TEMPLATE """(.*?)"""\n', lines, flags=re.DOTALL)
    assert in_go(text, "What?") == 'Q: {"What?"}\n\\A:'
    assert lines.endswith(
        "PARAMETER temperature 0\nPARAMETER top_k 1\nPARAMETER repeat_penalty 1\nPARAMETER num_ctx 64\n"
        f'PARAMETER num_predict 64\nPARAMETER stop "{HIDDEN}{EOS}{HIDDEN}"\n'
    )


def in_go(text, prompt):
    """What Go's text/template makes of a text with actions that are strings or the prompt."""

    def value(action):
        found = action[1].strip()
        return prompt if found == ".Prompt" else json.loads(found)

    return re.sub(r"\{\{(.*?)\}\}", value, text)


def test_a_prompt_that_begins_with_bos(tmp_path):
    """Whoever reads the file adds BOS, so Ollama's template leaves it out and the chat template has it."""
    source = source_of(tmp_path / "model", template=PromptTemplate(before=(1,)))
    file = write_gguf(source, tmp_path / "tiny.gguf", GgufType.f32)
    fields = fields_of(file.path)
    assert (fields["tokenizer.ggml.bos_token_id"], fields["tokenizer.ggml.add_bos_token"]) == (1, True)
    assert f"'{HIDDEN}{TURN}{HIDDEN}' + last.text" in fields["tokenizer.chat_template"]
    assert 'TEMPLATE """{{ .Prompt }}"""' in (tmp_path / "Modelfile").read_text()


@pytest.mark.parametrize("name", PRE_TOKENIZERS)
def test_a_pre_tokenizer_is_known_by_what_it_does(name):
    content = json.loads(tiny_tokenizer(name).to_str())
    assert pre_tokenizer_name(content) == name


def test_patterns_of_published_tokenizers_are_known():
    split = {
        "type": "Split",
        "pattern": {
            "Regex": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
            r"|\s*[\r\n]+|\s+(?!\S)|\s+"
        },
        "behavior": "Isolated",
        "invert": False,
    }
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    content = {"model": {"type": "BPE"}, "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, level]}}
    assert pre_tokenizer_name(content) == "llama-bpe"
    split["pattern"] = {"Regex": r"\p{N}{1,4}"}
    with pytest.raises(UserError, match=r"its pre-tokenizer \(Split and ByteLevel\) is not known; gpt-2, llama-bpe"):
        pre_tokenizer_name(content)


def with_prefix_space(tokenizer):
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)


def with_normalizer(normalizer):
    def change(tokenizer):
        tokenizer.normalizer = normalizer

    return change


def with_white_space(tokenizer):
    tokenizer.add_special_tokens([AddedToken("<mask>", lstrip=True)])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            with_prefix_space,
            "its pre-tokenizer (ByteLevel) is not known; gpt-2, llama-bpe, qwen2, smollm are",
        ),
        (with_normalizer(NFC()), "a tokenizer with the normalizer NFC is not supported"),
        (with_normalizer(NFKC()), "a tokenizer with the normalizer NFKC is not supported"),
        (with_white_space, "a tokenizer whose token <mask> takes in white space is not supported"),
    ],
)
def test_a_tokenizer_that_llama_cpp_has_not(tmp_path, capsys, change, reason):
    tokenizer = tiny_tokenizer(size=590)
    change(tokenizer)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    folder = model_folder_of(tmp_path / "model")
    (tmp_path / "tokenizer.json").rename(folder / "tokenizer.json")
    (folder / "golden.json").unlink()
    assert refusal(folder, capsys).startswith(reason)


@pytest.mark.parametrize(
    ("architecture", "changes", "reason"),
    [
        ("mistral", {}, "its architecture is mistral; gpt2, llama, qwen2, qwen3 are supported"),
        ("llama", {"hidden_act": "gelu"}, "a llama model with hidden_act=gelu is not supported"),
        ("qwen3", {"attention_bias": True}, "a qwen3 model with attention_bias=True is not supported"),
        ("qwen2", {"use_sliding_window": True}, "a qwen2 model with use_sliding_window=True is not supported"),
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "a gpt2 model with scale_attn_by_inverse_layer_idx=True"),
        ("llama", {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}}, "'rope_type': 'line"),
    ],
)
def test_a_model_that_llama_cpp_does_not_compute(tmp_path, capsys, monkeypatch, architecture, changes, reason):
    monkeypatch.setitem(SIZES, "mistral", SIZES["llama"])
    assert reason in refusal(model_folder_of(tmp_path / "model", architecture, **changes), capsys)


def refusal(folder, capsys):
    capsys.readouterr()
    assert export.main([str(folder), "--to", "gguf", "--output", str(folder.parent / "out" / "tiny.gguf")]) == 2
    out, error = capsys.readouterr()
    assert not out
    assert not list((folder.parent / "out").iterdir())
    begin = f"error: {folder}: cannot be written as GGUF: "
    assert error.startswith(begin)
    assert error.count("\n") == 1
    return error.removeprefix(begin).rstrip("\n")


def test_nothing_is_left_of_a_write_that_fails(tmp_path, monkeypatch):
    source = source_of(tmp_path / "model")
    (tmp_path / "tiny.gguf").write_text("before")

    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(gguf.GGUFWriter, "write_tensors_to_file", full)
    with pytest.raises(OSError, match="No space"):
        write_gguf(source, tmp_path / "tiny.gguf", GgufType.f32)
    assert (tmp_path / "tiny.gguf").read_text() == "before"
    assert {path.name for path in tmp_path.iterdir()} == {"model", "tiny.gguf"}


def test_a_run_of_an_older_version(tmp_path):
    """Its folder has neither a chat template nor ends in generation_config.json."""
    folder = model_folder_of(tmp_path / "model", template=PROMPT)
    (folder / "chat_template.jinja").unlink()
    changed_json(folder / "tokenizer_config.json", tokenizer_class="TokenizersBackend")
    (folder / "generation_config.json").unlink()
    assert export.main([str(folder), "--to", "gguf", "--output", str(tmp_path / "tiny.gguf")]) == 0
    assert "last.text" in fields_of(tmp_path / "tiny.gguf")["tokenizer.chat_template"]
