"""Tiny models with random weights, and GGUF files of them as llama.cpp's converter writes them."""

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, trainers
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PreTrainedModel

from qa_lm.data.pretrained.gguf_tokenizer import PRE_TOKENIZERS, ByteLevel
from tests.conftest import builtin

EOS, TURN, TOOL = "<|end|>", "<|turn|>", "<tool>"
TEXTS = [text for pair in builtin("capitals") for text in (pair.question, pair.answer)]
TEXTS += ["1 22 333 4444 12345", "don't DON'T we'll", "한국어 텍스트", "if x == 1:\n    return (y)\n\n", "नमस्ते दुनिया"]
SMALL = {"vocab_size": 600, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
SIZES: dict[str, dict[str, Any]] = {
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64},
    "llama": {"num_key_value_heads": 2, "tie_word_embeddings": True, "rope_theta": 10000.0},
    "qwen2": {"num_key_value_heads": 2, "tie_word_embeddings": False},
    "qwen3": {"num_key_value_heads": 2, "tie_word_embeddings": True, "head_dim": 16},
}
COMMON = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
}


def tiny_tokenizer(pre: str = "gpt-2", size: int = 599) -> Tokenizer:
    """A byte-level BPE trained on texts that this pre-tokenizer has split."""
    tokenizer = Tokenizer(models.BPE(ignore_merges=pre == "llama-bpe"))
    tokenizer.pre_tokenizer = PRE_TOKENIZERS[pre]()
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[EOS, TURN],
        initial_alphabet=ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    tokenizer.add_tokens([AddedToken(TOOL, normalized=False)])
    return tokenizer


def tiny_model(architecture: str = "llama", **changes: Any) -> PreTrainedModel:
    """A model whose weights are large enough that each of them matters."""
    common = {} if architecture == "gpt2" else COMMON
    config = CONFIG_MAPPING[architecture](**(common | SMALL | SIZES[architecture] | changes))
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight) * 0.1)
    return model


def write_gguf(path: Path, model: PreTrainedModel, tokenizer: Tokenizer, pre: str = "gpt-2", **changes: Any) -> Path:
    """Write a GGUF file in float32.

    Args:
        path: the file to write.
        model: one of `tiny_model`.
        tokenizer: its tokenizer.
        pre: `tokenizer.ggml.pre`.
        changes: fields by name, with "__" for "."; None leaves a field out, an array is a tensor.
    """
    architecture = model.config.model_type
    writer = gguf.GGUFWriter(path, architecture)
    fields = _model_fields(model) | tokenizer_fields(tokenizer, pre)
    fields |= {name.replace("__", "."): value for name, value in changes.items()}
    tensors = {name: value for name, value in fields.items() if isinstance(value, np.ndarray)}
    for name, value in fields.items():
        if name not in tensors and value is not None:
            _add(writer, name, value)
    for name, weight in (_tensors(model) | tensors).items():
        writer.add_tensor(name, np.ascontiguousarray(weight))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _add(writer: gguf.GGUFWriter, name: str, value: Any) -> None:
    kinds: dict[type, Any] = {
        str: writer.add_string,
        bool: writer.add_bool,
        int: writer.add_uint32,
        float: writer.add_float32,
    }
    kinds.get(type(value), writer.add_array)(name, value)


def _model_fields(model: PreTrainedModel) -> dict[str, Any]:
    config = model.config
    fields = {
        "context_length": config.max_position_embeddings,
        "embedding_length": config.hidden_size,
        "block_count": config.num_hidden_layers,
        "attention.head_count": config.num_attention_heads,
        "feed_forward_length": config.to_dict().get("intermediate_size", 4 * config.hidden_size),
    }
    if config.model_type == "gpt2":
        fields["attention.layer_norm_epsilon"] = config.layer_norm_epsilon
    else:
        fields["attention.head_count_kv"] = config.num_key_value_heads
        fields["attention.layer_norm_rms_epsilon"] = config.rms_norm_eps
        fields["rope.freq_base"] = float(config.rope_parameters["rope_theta"])
        fields["vocab_size"] = config.vocab_size
    if config.model_type == "llama":
        fields["rope.dimension_count"] = config.head_dim
    if config.model_type == "qwen3":
        fields |= {"attention.key_length": config.head_dim, "attention.value_length": config.head_dim}
    return {f"{config.model_type}.{name}": value for name, value in fields.items()}


def tokenizer_fields(tokenizer: Tokenizer, pre: str) -> dict[str, Any]:
    """The fields of a tokenizer; ids without a token are unused ones."""
    content = json.loads(tokenizer.to_str())
    names = {number: token for token, number in tokenizer.get_vocab().items()}
    special = {each["id"]: 3 if each["special"] else 4 for each in content["added_tokens"]}
    size = SMALL["vocab_size"]
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": pre,
        "tokenizer.ggml.tokens": [names.get(number, f"[PAD{number}]") for number in range(size)],
        "tokenizer.ggml.token_type": [special.get(number, 1 if number in names else 5) for number in range(size)],
        "tokenizer.ggml.merges": [" ".join(pair) for pair in content["model"]["merges"]],
        "tokenizer.ggml.eos_token_id": tokenizer.token_to_id(EOS),
        "tokenizer.ggml.bos_token_id": tokenizer.token_to_id(EOS),
        "tokenizer.ggml.padding_token_id": tokenizer.token_to_id(EOS),
        "tokenizer.ggml.add_bos_token": False,
    }


def _tensors(model: PreTrainedModel) -> dict[str, np.ndarray]:
    """Weights by their names in GGUF, in ggml's order."""
    config = model.config
    architecture = next(key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == config.model_type)
    names = gguf.get_tensor_name_map(architecture, config.num_hidden_layers)
    found = {}
    for name, parameter in model.named_parameters():  # a tied head is not named again
        stem, ending = name.rsplit(".", 1)
        weight = parameter.detach().numpy()
        if config.model_type == "llama" and stem.endswith(("q_proj", "k_proj")):
            heads = config.num_attention_heads if stem.endswith("q_proj") else config.num_key_value_heads
            weight = _interleaved(weight, heads)
        if config.model_type == "gpt2" and stem.split(".")[-1].startswith("c_") and weight.ndim == 2:
            weight = weight.T  # transformers' Conv1D
        found[f"{names.get_name(stem)}.{ending}"] = weight
    return found


def _interleaved(weight: np.ndarray, heads: int) -> np.ndarray:
    """Rows of queries or keys in ggml's order: the two parts of a rotated pair are neighbours."""
    halves = weight.reshape(heads, 2, weight.shape[0] // heads // 2, -1)
    return halves.swapaxes(1, 2).reshape(weight.shape)
