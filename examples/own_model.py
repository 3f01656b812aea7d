"""A model of your own: a recurrent network (GRU) in place of a transformer.

From Python: `python examples/own_model.py`. On the command line, in the folder of this file:
`train.py trust=own_model model._target_=own_model.GruLM optimizer.lr=1e-2`, then `ask.py RUN_FOLDER --trust own_model`.
"""

from typing import Any

from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput, CausalLMOutput

import qa_lm


class GruConfig(PretrainedConfig):
    """Its arguments are settings: `model.hidden_size`, `model.layers`, and any other as `model.NAME`."""

    model_type = "gru_lm"

    def __init__(self, vocab_size: int = 300, hidden_size: int = 64, num_hidden_layers: int = 1, **more: Any) -> None:
        self.vocab_size, self.hidden_size, self.num_hidden_layers = vocab_size, hidden_size, num_hidden_layers
        self.max_position_embeddings = more.pop("max_position_embeddings", 256)
        super().__init__(**more)


class GruBody(PreTrainedModel):
    """From ids (rows, time) to hidden states (rows, time, hidden_size)."""

    config_class = GruConfig

    def __init__(self, config: GruConfig) -> None:
        super().__init__(config)
        self.embedding = nn.Embedding(config.vocab_size, config.hidden_size)
        self.gru = nn.GRU(config.hidden_size, config.hidden_size, config.num_hidden_layers, batch_first=True)

    def get_input_embeddings(self) -> nn.Embedding:
        """One row for each id."""
        return self.embedding

    def forward(self, input_ids: Tensor, **unused: Any) -> BaseModelOutput:
        """A recurrent network has no use for position_ids and use_cache."""
        return BaseModelOutput(last_hidden_state=self.gru(self.embedding(input_ids))[0])


class GruLM(PreTrainedModel):
    """The body, and a head that turns hidden states into logits."""

    config_class, base_model_prefix = GruConfig, "body"

    def __init__(self, config: GruConfig) -> None:
        super().__init__(config)
        self.body = GruBody(config)
        self.head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def get_output_embeddings(self) -> nn.Linear:
        """The head."""
        return self.head

    def forward(self, input_ids: Tensor, **unused: Any) -> CausalLMOutput:
        """Logits (rows, time, vocab_size)."""
        return CausalLMOutput(logits=self.head(self.body(input_ids).last_hidden_state))


if __name__ == "__main__":
    to_recall = ("monitor=train/recall", "monitor_mode=max", "stop_at_recall=1.0", "early_stopping.patience=null")
    sizes = ("model=tiny", "model.layers=1", "optimizer.lr=1e-2", "tokenizer=bpe", "trainer.max_epochs=40")
    run = qa_lm.train(qa_lm.compose(*to_recall, *sizes), model=GruLM)
    print(run.ask("What is 2 + 2?"))
