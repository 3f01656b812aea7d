"""The tutorial by hand, in one page: the loop that scripts/train.py must equal, epoch by epoch.

usage: python examples/tutorial_loop.py [--seed 42] [--width 768 --layers 12 --heads 12] [--epochs 10]

Nothing here but the tokenizer comes from qa_lm: the pairs are encoded as one string with the EOS token, the loss is
torch's cross-entropy over shifted ids, the optimizer is torch's AdamW in its default form. Prints JSON.
"""

import argparse
import json
import random
import time

import torch
import torch.nn.functional as F
from transformers import GPT2Config, GPT2LMHeadModel

from qa_lm.data.gpt2_vocabulary import load_gpt2_tokenizer
from qa_lm.data.pairs import BUILTIN


def main() -> None:
    """Train, validate each epoch, print the losses and the seconds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("seed", 42), ("width", 768), ("layers", 12), ("heads", 12), ("epochs", 10)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()

    tokenizer = load_gpt2_tokenizer()
    pairs = [json.loads(line) for line in BUILTIN["tutorial"].read_text().splitlines()]
    random.seed(42)
    random.shuffle(pairs)
    train, validation = pairs[:8], pairs[8:]

    torch.manual_seed(options.seed)
    size = {"n_embd": options.width, "n_layer": options.layers, "n_head": options.heads, "n_positions": 256}
    model = GPT2LMHeadModel(GPT2Config(**size, embd_pdrop=0.0, resid_pdrop=0.0, attn_pdrop=0.0))
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-5)

    def pair_loss(question: str, answer: str) -> torch.Tensor:
        ids = torch.tensor([tokenizer.encode(question + " " + answer + "<|endoftext|>").ids])
        return F.cross_entropy(model(ids[:, :-1]).logits.flatten(0, 1), ids[:, 1:].flatten())

    start, epochs, train_seconds = time.perf_counter(), [], 0.0
    for _ in range(options.epochs):
        model.train()
        train_loss, epoch_start = 0.0, time.perf_counter()
        for pair in train:
            optimizer.zero_grad()
            loss = pair_loss(**pair)
            loss.backward()
            optimizer.step()
            train_loss += loss.item() / len(train)
        train_seconds += time.perf_counter() - epoch_start
        model.eval()
        with torch.no_grad():
            val_loss = sum(pair_loss(**pair).item() for pair in validation) / len(validation)
        epochs.append({"train_loss": train_loss, "val_loss": val_loss})
    seconds = time.perf_counter() - start
    print(json.dumps({"seconds": seconds, "train_seconds": train_seconds, "epochs": epochs}))


if __name__ == "__main__":
    main()
