"""LitGPT's training, run in an environment of its own: `LITGPT_PYTHON scripts/benchmarks/litgpt_training.py SETTINGS`.

SETTINGS is the JSON object of trainers.py. LitGPT cannot share TRL's environment: the two want different versions of
huggingface-hub. Its pre-training recipe, by its own parts: the model compiled, bf16-mixed by Fabric where the side is
named -bf16, the examples one after another cut into rows of `row` tokens (8 a step; examples see each other), its own
cross-entropy, unchunked as there, AdamW, here fused, which is faster on a CPU too. Prints one line of JSON.
"""

import importlib.metadata
import json
import resource
import statistics
import sys
import time
from pathlib import Path
from typing import Any, cast

WARM, ROWS = 3, 8
"""First steps, not measured; rows of a step."""


def main(settings: dict[str, Any]) -> None:
    """Train; print what was measured."""
    import torch
    from lightning.fabric import Fabric
    from litgpt.model import GPT, Config
    from litgpt.utils import chunked_cross_entropy

    tokens, vocab_size = token_stream(settings)
    fabric = Fabric(accelerator="auto", devices=1, precision="bf16-mixed" if "bf16" in settings["side"] else "32-true")
    fabric.seed_everything(0)
    model = GPT(Config(**config_of(settings["model"], vocab_size)))
    model.lm_head.weight = model.transformer.wte.weight
    model.max_seq_length = settings["row"]
    compiled = fabric.setup(cast(torch.nn.Module, torch.compile(model)))
    optimizer: Any = fabric.setup_optimizers(torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True))
    size, seconds = ROWS * settings["row"], []
    for step in range(settings["steps"]):
        begin = step * size % (len(tokens) - size - 1)
        piece = tokens[begin : begin + size + 1]
        inputs, targets = (fabric.to_device(part.view(ROWS, -1)) for part in (piece[:-1], piece[1:]))
        start = time.perf_counter()
        loss = chunked_cross_entropy(compiled(inputs), targets, chunk_size=0)
        fabric.backward(loss)
        optimizer.step()
        optimizer.zero_grad()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    measured = statistics.median(seconds[WARM:])
    if torch.cuda.is_available():
        peak = torch.cuda.max_memory_allocated()
    else:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    found = {"tokens_per_second": size / measured, "step_seconds": measured, "peak_memory": peak}
    print(json.dumps(found | {"versions": {name: importlib.metadata.version(name) for name in ("torch", "litgpt")}}))


def token_stream(settings: dict[str, Any]) -> tuple[Any, int]:
    """All examples one after another, each with its EOS, and the number of entries of the vocabulary."""
    import torch
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(Path(settings["tokenizer"]) / "tokenizer.json"))
    tokenizer.encode_special_tokens = True
    stream: list[int] = []
    eos: Any = tokenizer.token_to_id("<|endoftext|>")
    with open(settings["pairs"], encoding="utf-8") as file:
        for pair in map(json.loads, file):
            texts = (pair["question"], " " + pair["answer"])
            stream += [id_ for text in texts for id_ in tokenizer.encode(text, add_special_tokens=False).ids]
            stream.append(eos)
    return torch.tensor(stream), tokenizer.get_vocab_size()


def config_of(model: dict[str, Any], vocab_size: int) -> dict[str, Any]:
    """Transformers' names of a Llama's sizes as LitGPT has them."""
    return {
        "block_size": model["max_position_embeddings"],
        "n_layer": model["num_hidden_layers"],
        "n_embd": model["hidden_size"],
        "n_head": model["num_attention_heads"],
        "n_query_groups": model["num_key_value_heads"],
        "intermediate_size": model["intermediate_size"],
        "padded_vocab_size": vocab_size,
        "vocab_size": vocab_size,
        "rotary_percentage": 1.0,
        "parallel_residual": False,
        "bias": False,
        "norm_class_name": "RMSNorm",
        "mlp_class_name": "LLaMAMLP",
    }


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
