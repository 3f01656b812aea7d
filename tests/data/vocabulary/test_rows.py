"""A model with the rows of a trimmed vocabulary computes the same logits."""

from typing import Any

import pytest
import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PreTrainedModel

from qa_lm.data.vocabulary.rows import keep_rows, parameters_before
from qa_lm.errors import UserError
from qa_lm.modeling.causal_lm import parameter_count
from tests.data.pretrained.gguf_writing import COMMON, SIZES, SMALL, tiny_model

OLD_IDS = [0, 3, *range(5, 600, 7)]


def cut(model: PreTrainedModel) -> tuple[torch.Tensor, int, PreTrainedModel]:
    """Logits of the kept tokens, parameters, and the model with fewer rows."""
    rows, parameters = torch.tensor(OLD_IDS), parameter_count(model)
    with torch.no_grad():
        before = model(input_ids=rows[None, :40]).logits[0][:, rows]
    keep_rows(model, OLD_IDS)
    return before, parameters, model


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("architecture", SIZES)
def test_logits_stay(architecture, tied):
    before, parameters, model = cut(tiny_model(architecture, tie_word_embeddings=tied))
    with torch.no_grad():
        after = model(input_ids=torch.arange(40)[None]).logits[0]
    assert after.shape == before.shape
    assert (after - before).abs().max() < 1e-4
    assert (model.lm_head.weight is model.get_input_embeddings().weight) == tied
    assert parameters_before(model, 600) == parameters
    assert parameters - parameter_count(model) == (600 - len(OLD_IDS)) * 32 * (1 if tied else 2)


def test_a_head_with_a_bias():
    sizes: dict[str, Any] = COMMON | SMALL
    config = CONFIG_MAPPING["phi"](**sizes)
    model = AutoModelForCausalLM.from_config(config).eval()
    torch.nn.init.normal_(model.lm_head.bias)
    before, parameters, model = cut(model)
    with torch.no_grad():
        assert (model(input_ids=torch.arange(40)[None]).logits[0] - before).abs().max() < 1e-4
    assert parameters_before(model, 600) == parameters


def test_a_saved_model_is_whole(tmp_path):
    named: dict[str, Any] = {"bos_token_id": 3, "eos_token_id": [12, 0], "pad_token_id": 1}
    _, _, model = cut(tiny_model(tie_word_embeddings=False, **named))
    model.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    ids = torch.arange(40)[None]
    with torch.no_grad():
        assert torch.equal(loaded(input_ids=ids).logits, model(input_ids=ids).logits)
        loaded(input_ids=ids, labels=ids).loss.item()
    config = loaded.config
    assert (config.vocab_size, config.bos_token_id, config.eos_token_id) == (len(OLD_IDS), 1, [3, 0])
    assert config.pad_token_id is None
    assert loaded.generation_config.eos_token_id == [3, 0]


def test_ids_beyond_the_embedding_are_refused():
    with pytest.raises(UserError, match=r"^tokenizer.trim: the tokenizer has ids up to 600, but the model has 600"):
        keep_rows(tiny_model(), [0, 600])


def test_models_with_other_matrices_of_the_vocabulary_are_refused():
    model = tiny_model("gpt2", n_positions=600)
    with pytest.raises(UserError, match=r"more matrices of 600 tokens than its embedding and its head"):
        keep_rows(model, OLD_IDS)
