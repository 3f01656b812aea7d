"""Measure, side by side in one run: `python scripts/benchmark.py PART [options]`.

Each part prints a table and writes JSON (`--output`). The sides take turns, and medians are reported, because a machine
is never quite idle; quote the ratios. Peers run in an environment of their own: make one, install the extra `bench`
into it (`pip install -e ".[bench]"`) and name its Python by --peers.

tutorial: the default run against the loop by hand (examples/tutorial_loop.py), ten epochs of GPT-2 small: seconds of
    the whole process, part by part
data: a file to the first batch of packed rows, the first time and from the store; with --peers also by datasets and
    TRL; with --generated N ... also the time and memory that files of N generated pairs take (625,000 and 5 million)
peers: tokens a second and peak memory of ours, the tutorial's loop, transformers' Trainer, TRL and LitGPT (which needs
    an environment of its own, --litgpt), like for like; and ours next to the fastest of all others
recall: seconds until 99% of the trained pairs are answered, ours and with --peers TRL's fastest setting
finetune: a pretrained model on 300 pairs: seconds to recall, held-out exact match, tokens a second and memory, of ours
    and with --peers TRL's full and LoRA, by its defaults and by its fastest setting; with --litgpt LitGPT's defaults
trim: a pretrained model (--model) and GPT-2 small from scratch with the whole vocabulary, and with one cut to the
    trained pairs and 0 or 8,192 first merges: size, tokens a second, memory, length and score of held-out pairs
roof: our tokens a second as a share of the machine's matrix multiplication, and what Lightning costs
faq: how many paraphrases of frequently asked questions each mode answers, trained questions as people write them, and
    what is refused; files by hand (scripts/benchmarks/faq/), or --files; from scratch, or from --model
eval: exact match from the forward pass, by our answers with and without drafts, and by transformers' generate
serve: requests a second and the time to answer of 1, 8 and 64 clients: ours, and in the environment of --peers
    `transformers serve` and, with the same model as --gguf, llama.cpp's server
sweep: seconds of a sweep of tiny jobs, forked from one process and each as a new process
budget: runs with a budget of time: seconds asked, planned and used by the whole process
"""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks import data, evaluation, peers, recall, roof, tutorial
from benchmarks.common import Runs, machine, print_medians
from benchmarks.faq import compare as faq
from benchmarks.finetune import comparison as finetune
from benchmarks.finetune import trim
from benchmarks.runs import budgets, sweep
from benchmarks.serving import comparison as serving

PARTS: dict[str, tuple[Callable[[argparse.Namespace], Runs], dict[str, str]]] = {
    "tutorial": (lambda o: tutorial.compare(o.rounds, o.epochs), tutorial.COLUMNS),
    "data": (lambda o: data.compare(o.files, o.row_tokens, o.rounds, o.peers, o.generated or []), data.COLUMNS),
    "peers": (lambda o: peers.compare(o.files, o.count, o.rounds, o.peers, o.litgpt, o.row_tokens), peers.COLUMNS),
    "recall": (
        lambda o: recall.compare(
            o.files[0], o.counts, o.rounds, o.peers, o.limit, o.rates, o.batches, o.optimizers, o.variants
        ),
        recall.COLUMNS,
    ),
    "finetune": (
        lambda o: finetune.compare(o.files[0], o.model, o.pairs, o.rounds, o.peers, o.litgpt, o.limit),
        finetune.COLUMNS,
    ),
    "trim": (lambda o: trim.compare(o.files[0], o.model, o.pairs, o.rounds, o.epochs), trim.COLUMNS),
    "roof": (lambda o: roof.compare(o.files[0], o.rounds, o.tokens, o.models, o.attention), roof.COLUMNS),
    "faq": (lambda o: faq.compare(o.files or faq.FILES, o.seeds, o.encoder, o.model), {}),
    "eval": (lambda o: evaluation.compare(o.files[0], o.count, o.rounds), evaluation.COLUMNS),
    "serve": (
        lambda o: serving.compare(o.files[0], o.model, o.rounds, o.seconds, o.peers, o.gguf),
        serving.COLUMNS,
    ),
    "sweep": (lambda o: sweep.compare(o.jobs, o.at_once, o.rounds), sweep.COLUMNS),
    "budget": (
        lambda o: budgets.compare(o.files[0], o.budgets, o.count or 300, o.rounds, o.settings),
        budgets.COLUMNS,
    ),
}
"""By part: what measures it, and the columns of its table (see `print_medians`); faq prints tables of its own."""


def main() -> int:
    """Run a part; print and write what came out."""
    options = _checked(_parser())
    measure, columns = PARTS[options.part]
    sides = measure(options)
    if options.part == "faq":
        faq.print_tables(sides)
    else:
        print_medians(sides, columns)
    if options.part == "tutorial":
        tutorial.print_parts(sides)
    if options.part == "peers":
        peers.print_fastest(sides)
    if options.output:
        report = {"machine": machine(), "part": options.part, "command": sys.argv[1:], "sides": sides}
        options.output.write_text(json.dumps(report, indent=2) + "\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=PARTS, help="what to measure")
    parser.add_argument(
        "--files", nargs="+", metavar="FILE", help="files of pairs; all parts but tutorial and sweep; faq has its own"
    )
    parser.add_argument("--rounds", type=int, default=3, help="times that each side runs (default 3)")
    parser.add_argument("--peers", metavar="PYTHON", help="the Python of an environment with the extra `bench`")
    parser.add_argument("--litgpt", metavar="PYTHON", help="peers, finetune: the Python of an environment with litgpt")
    parser.add_argument("--row-tokens", type=int, default=256, help="data: a row; peers: TRL's row (default 256)")
    parser.add_argument(
        "--generated", type=int, nargs="*", metavar="N", help="data: also prepare N generated pairs, for each N"
    )
    parser.add_argument(
        "--count", type=int, help="peers, eval, budget: pairs of each file that are used (default all; budget 300)"
    )
    parser.add_argument("--counts", type=int, nargs="+", default=[1000, 3610], help="recall: pairs (1000 3610)")
    parser.add_argument(
        "--model", metavar="FOLDER", help="finetune, faq, trim: a pretrained model; serve: model/ of a run"
    )
    parser.add_argument("--gguf", metavar="FILE", help="serve: the same model as a GGUF file, for llama.cpp")
    parser.add_argument("--seconds", type=float, default=5, help="serve: time of each number of clients (default 5)")
    parser.add_argument(
        "--pairs", type=int, nargs=2, default=(300, 200), help="finetune, trim: pairs trained, held out (300 200)"
    )
    parser.add_argument(
        "--limit", type=float, default=900, help="recall, finetune: seconds that a peer may take (default 900)"
    )
    parser.add_argument("--rates", type=float, nargs="+", default=[1e-3, 3e-3], help="recall: TRL's learning rates")
    parser.add_argument("--optimizers", nargs="+", default=["adamw", "muon"], help="recall: TRL's (adamw muon)")
    parser.add_argument(
        "--variants", nargs="+", default=[], metavar="KEY=VALUE", help="recall: settings, each next to the recipe"
    )
    parser.add_argument("--batches", type=int, nargs="+", default=[2, 8], help="recall: TRL's rows a step")
    parser.add_argument("--epochs", type=int, default=10, help="tutorial, and trim from scratch: epochs (default 10)")
    parser.add_argument("--tokens", type=int, default=2048, help="roof: positions a step (default 2048)")
    kinds = ("training", "fused")
    parser.add_argument("--attention", nargs="+", choices=kinds, default=["training"], help="roof: (default training)")
    parser.add_argument("--models", nargs="+", choices=roof.MODELS, default=[*roof.MODELS], help="roof: (default all)")
    parser.add_argument("--seeds", type=int, default=3, help="faq: number of seeds (default 3)")
    parser.add_argument("--jobs", type=int, default=20, help="sweep: number of jobs (default 20)")
    parser.add_argument("--at-once", type=int, default=1, help="sweep: jobs that run at once (default 1)")
    parser.add_argument("--encoder", metavar="FOLDER", help="faq: a sentence encoder for evaluation.encoder")
    parser.add_argument("--budgets", nargs="+", default=["30s", "60s", "120s"], help="budget: (30s 60s 120s)")
    parser.add_argument("--settings", nargs="*", default=[], metavar="KEY=VALUE", help="budget: further settings")
    parser.add_argument("--output", type=Path, help="a file for the JSON")
    return parser


def _checked(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """The options of the command line, with absolute paths, since the children run in another folder."""
    options = parser.parse_args()
    if options.rounds < 1 or options.seeds < 1:
        parser.error("--rounds and --seeds must be at least 1")
    if options.generated == []:
        options.generated = list(data.GENERATED)
    if options.part == "data" and options.generated and not options.files:
        options.files = []
    elif options.part not in ("tutorial", "faq", "sweep") and not options.files:
        parser.error(f"{options.part} needs --files")
    if options.part == "peers" and not options.peers:
        parser.error("peers needs --peers")
    if options.part in ("finetune", "serve") and not options.model:
        parser.error(f"{options.part} needs --model")
    if options.files:
        options.files = [str(Path(name).resolve()) for name in options.files]
    for name in ("model", "encoder"):
        if given := getattr(options, name):
            setattr(options, name, str(Path(given).resolve()))
    return options


if __name__ == "__main__":
    sys.exit(main())
