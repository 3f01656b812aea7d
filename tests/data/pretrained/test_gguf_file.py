"""A GGUF file becomes a transformers folder with the same logits and ids, once; what is not supported is one line."""

import json
import shutil

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from qa_lm.data.pretrained import gguf_file as module
from qa_lm.data.pretrained import gguf_weights
from qa_lm.data.pretrained.gguf_file import gguf_folder
from qa_lm.data.tokenizer import load_tokenizer
from qa_lm.errors import UserError
from tests.data.pretrained.gguf_writing import EOS, SIZES, TEXTS, TURN, tiny_model, tiny_tokenizer, write_gguf

IDS = torch.arange(40)[None] * 13 % 600


@pytest.fixture(scope="module")
def tokenizer():
    return tiny_tokenizer()


@pytest.fixture(scope="module")
def whole(tmp_path_factory, tokenizer):
    """A file that can be converted."""
    return write_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf", tiny_model(), tokenizer)


def refusal(path, tmp_path):
    with pytest.raises(UserError) as caught:
        gguf_folder(path, tmp_path / "cache")
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "cache").glob("gguf/*/*"))
    return str(caught.value)


def logits(model):
    with torch.inference_mode():
        return model(input_ids=IDS).logits


@pytest.mark.parametrize("architecture", SIZES)
def test_a_converted_model_has_the_logits_and_ids_of_its_source(tmp_path, tokenizer, architecture):
    source = tiny_model(architecture)
    path = write_gguf(tmp_path / "tiny.gguf", source, tokenizer)
    folder = gguf_folder(path, tmp_path / "cache")
    converted = AutoModelForCausalLM.from_pretrained(folder).eval()
    assert converted.dtype == torch.float32
    assert converted.config.max_position_embeddings == 64
    torch.testing.assert_close(logits(converted), logits(source), atol=1e-4, rtol=0)
    tied = source.config.tie_word_embeddings
    assert (converted.get_output_embeddings().weight is converted.get_input_embeddings().weight) == tied
    expected = [encoding.ids for encoding in tokenizer.encode_batch(TEXTS)]
    assert load_tokenizer(folder).encode(TEXTS) == expected
    assert AutoTokenizer.from_pretrained(folder)(TEXTS).input_ids == expected


def test_every_architecture_that_is_supported_is_tested():
    assert set(gguf_weights.ARCHITECTURES) == set(SIZES)


def test_a_file_is_converted_once(tmp_path, whole, monkeypatch, capfd):
    folder = gguf_folder(whole, tmp_path / "cache")
    assert capfd.readouterr() == ("model: converting tiny.gguf (0 MB) to safetensors, once\n", "")
    assert {path.name for path in folder.iterdir()} == {
        *("config.json", "generation_config.json", "meta.json"),
        *("model.safetensors", "tokenizer.json", "tokenizer_config.json"),
    }
    assert "gguf" not in (folder / "config.json").read_text()
    assert GenerationConfig.from_pretrained(folder).do_sample is False
    monkeypatch.setattr(module, "_convert", None)
    moved = shutil.copy(whole, tmp_path / "moved.gguf")
    assert gguf_folder(moved, tmp_path / "cache") == folder
    assert not capfd.readouterr().out


def test_what_the_file_says_about_its_use_is_kept(tmp_path, tokenizer):
    fields = {
        "tokenizer__chat_template": "{{ messages[0]['content'] }}",
        "tokenizer__ggml__add_bos_token": True,
        "tokenizer__ggml__eot_token_id": tokenizer.token_to_id(TURN),
    }
    folder = gguf_folder(write_gguf(tmp_path / "chat.gguf", tiny_model(), tokenizer, **fields), tmp_path / "cache")
    config = json.loads((folder / "tokenizer_config.json").read_text())
    assert (config["eos_token"], config["bos_token"], config["add_bos_token"]) == (EOS, EOS, True)
    loaded = AutoTokenizer.from_pretrained(folder)
    assert loaded.apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=False) == "Hi"
    assert loaded("Hi").input_ids == [0, *tokenizer.encode("Hi").ids]
    for name in ("config.json", "generation_config.json"):
        assert json.loads((folder / name).read_text())["eos_token_id"] == [0, 1]


def test_rotary_frequencies_of_llama_3(tmp_path, tokenizer):
    rope = gguf_weights.LLAMA3_ROPE | {"rope_type": "llama3", "factor": 8.0, "rope_theta": 500000.0}
    source = tiny_model(rope_parameters=rope, head_dim=32)
    plain = 500000.0 ** -(np.arange(16) / 16)
    factors = (plain / source.model.rotary_emb.inv_freq.numpy()).astype(np.float32)
    assert len(set(factors.round(3))) > 2
    path = write_gguf(tmp_path / "tiny.gguf", source, tokenizer, rope_freqs__weight=factors)
    converted = AutoModelForCausalLM.from_pretrained(gguf_folder(path, tmp_path / "cache"))
    assert converted.config.rope_parameters == rope
    torch.testing.assert_close(logits(converted), logits(source), atol=1e-4, rtol=0)
    other = write_gguf(tmp_path / "other.gguf", source, tokenizer, rope_freqs__weight=np.sqrt(factors))
    assert "has factors other than Llama 3's" in refusal(other, tmp_path / "other")


def test_a_missing_package(tmp_path, whole, monkeypatch):
    monkeypatch.setattr("qa_lm.data.pretrained.place.find_spec", lambda name: None if name == "gguf" else name)
    assert refusal(whole, tmp_path) == f"{whole}: needs gguf: pip install 'qa_lm[gguf]'; or give a folder"


def test_no_file(tmp_path):
    assert refusal(tmp_path / "none.gguf", tmp_path) == f"{tmp_path / 'none.gguf'}: no such file"


@pytest.mark.parametrize("kept", [0, 3, 4, 20, 30, 300, 5_000, 0.5, 0.99, -1])
def test_a_file_that_is_cut_off(tmp_path, whole, kept):
    content, path = whole.read_bytes(), tmp_path / "cut.gguf"
    path.write_bytes(content[: int(kept * len(content)) if isinstance(kept, float) else kept])
    assert refusal(path, tmp_path).startswith(f"{path}: is not a valid GGUF file: ")


def test_a_file_of_another_kind(tmp_path):
    (tmp_path / "text.gguf").write_text("What is 2 + 2?" * 100)
    assert refusal(tmp_path / "text.gguf", tmp_path).endswith("is not a valid GGUF file: GGUF magic invalid")


def test_an_array_that_claims_to_be_longer_than_the_file(tmp_path, whole):
    content = whole.read_bytes()
    count = content.index(b"tokenizer.ggml.token_type") + len(b"tokenizer.ggml.token_type") + 8
    (tmp_path / "long.gguf").write_bytes(content[:count] + (2**50).to_bytes(8, "little") + content[count + 8 :])
    assert "is not a valid GGUF file" in refusal(tmp_path / "long.gguf", tmp_path)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"general__architecture": "mamba"}, "its architecture is not supported: mamba; supported are gpt2, llama"),
        (
            {"llama__rope__scaling__type": "yarn"},
            "its architecture is not supported: llama with rope.scaling.type=yarn",
        ),
        ({"split__count": 3}, "is one of 3 parts; join them with llama-gguf-split --merge"),
        ({"llama__block_count": 3}, "its 20 tensors are not those of a llama model with 3 layers of width 32; give a"),
        ({"llama__block_count": None}, "its 20 tensors are not those of a llama model with 32 layers"),
        ({"llama__block_count": 2**31}, "its 20 tensors are not those of a llama model with 2147483648 layers"),
        ({"llama__feed_forward_length": 2**20}, "its 20 tensors are not those of a llama model"),
        ({"llama__embedding_length": 2**20}, "its 20 tensors are not those of a llama model"),
        ({"llama__embedding_length": "wide"}, "its configuration cannot be read: "),
        ({"llama__attention__head_count": 0}, "its configuration cannot be read: "),
        ({"blk.0.attn_q.bias": np.ones(32, np.float32)}, "its 21 tensors are not those of a llama model"),
        ({"tokenizer__ggml__model": None}, "has no tokenizer (tokenizer.ggml.model)"),
    ],
)
def test_what_is_not_supported(tmp_path, tokenizer, changes, reason):
    path = write_gguf(tmp_path / "tiny.gguf", tiny_model(), tokenizer, **changes)
    assert reason in refusal(path, tmp_path)


def test_a_tensor_with_a_name_that_the_model_does_not_know(tmp_path, whole):
    path = tmp_path / "named.gguf"
    path.write_bytes(whole.read_bytes().replace(b"blk.1.attn_q.weight", b"blk.1.attn_z.weight"))
    assert refusal(path, tmp_path).endswith("cannot be read: it has no model.layers.1.self_attn.q_proj.weight")


def test_a_full_disk(tmp_path, whole, monkeypatch):
    from safetensors import SafetensorError
    from transformers import PreTrainedModel

    def full(*arguments):
        raise SafetensorError("No space left on device (os error 28)")

    monkeypatch.setattr(PreTrainedModel, "save_pretrained", full)
    with pytest.raises(UserError, match="the prepared data cannot be written: No space left on device"):
        gguf_folder(whole, tmp_path / "cache")
