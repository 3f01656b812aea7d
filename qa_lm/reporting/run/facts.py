"""What was trained on what, on which machine, and how to do it again."""

import shlex

from qa_lm.reporting.run.files import COMMAND, RunFiles, given_command, training_program
from qa_lm.reporting.wording import ABSENT, counted, decimal, duration, finite, listed, size, whole

Fact = tuple[str, str]


def source_names(run: RunFiles) -> str:
    """The files or data sets of the pairs."""
    data = run.config.get("data") or {}
    return listed([str(name) for name in run.data_report.get("sources") or {}]) or str(data.get("path") or "pairs")


def run_facts(run: RunFiles) -> list[Fact]:
    """Labels and values: data, model, training, cost. What is not known is left out."""
    facts = [
        ("Data", _data(run)),
        ("Split", _split(run)),
        ("Left out", _left_out(run)),
        ("Prompt template", _written(run)),
        ("Tokens", _tokens(run)),
        ("Model", _model(run)),
        ("Optimizer", _optimizer(run)),
        ("Epochs", _epochs(run)),
        ("Weights kept", _weights(run)),
        ("Cost", _cost(run)),
    ]
    return [(label, value) for label, value in facts if value]


def environment_facts(run: RunFiles) -> list[Fact]:
    """Labels and values: machine, versions, code, data."""
    environment = run.environment
    git = environment.get("git") or {}
    changed = ", with changes that are in no commit" if git.get("changed") else ""
    gpus = [str(name) for name in environment.get("gpus") or []]
    packages = environment.get("packages") or {}
    facts = [
        ("Started", environment.get("started")),
        ("Machine", environment.get("platform")),
        ("GPUs", listed(gpus) if gpus else "none" if "gpus" in environment else ""),
        ("Threads", environment.get("threads")),
        ("Python", environment.get("python")),
        ("Packages", ", ".join(f"{name} {version}" for name, version in packages.items())),
        ("Code", f"commit {git['commit']}{changed}" if git.get("commit") else ""),
        ("Data, SHA-256", environment.get("data_sha256")),
        ("Seed", environment.get("seed")),
    ]
    return [(label, str(value)) for label, value in facts if value not in (None, "")]


def again(run: RunFiles) -> tuple[str, list[str]]:
    """The command that makes the run again, empty if it is not known, and what to mind."""
    command = given_command(run.environment)
    if not command:
        return "", []
    notes = ["Paths in it start at the folder where it was given."]
    kept = [part for part in command if not part.lstrip("+").startswith("hydra.run.dir=")]
    if len(kept) < len(command):
        notes.append("The name of the run folder is left out of it: a folder that holds a run is not written again.")
    if {"-m", "--multirun"} & set(command):
        notes.append("It is the command of a whole sweep, of which this run is one.")
    if (run.environment.get("git") or {}).get("changed"):
        notes.append("The code had changes that are in no commit; the commit alone may give another result.")
    if kept[0] in ("train.py", COMMAND):
        kept = [*training_program(run.environment), *kept[1:]]
    return shlex.join(kept), notes


def _data(run: RunFiles) -> str:
    counts = run.data_report.get("counts") or {}
    if not counts:
        trained = run.metrics.get("pairs_trained")
        return "" if trained is None else f"{source_names(run)}: {counted(trained, 'trained pair')}"
    trained = run.metrics.get("pairs_trained", counts.get("train"))
    sides = [f"{whole(trained)} for training", f"{whole(counts.get('validation'))} held out for validation"]
    if never := run.metrics.get("pairs_never_trained"):
        sides.insert(1, f"{whole(never)} that no training step came to")
    if counts.get("test"):
        sides.append(f"{whole(counts['test'])} for the test")
    return f"{source_names(run)}: {counted(counts.get('pairs'), 'pair')}, {listed(sides)}"


def _written(run: RunFiles) -> str:
    data = run.config.get("data") or {}
    return f"{data.get('prompt', '')}{data.get('completion', '')}".replace("\n", "\\n")


def _split(run: RunFiles) -> str:
    data = run.config.get("data") or {}
    if data.get("validation_path"):
        words = "by files"
    else:
        words = f"by {data['split']}, seed {_plain(data.get('split_seed'))}" if data.get("split") else ""
    reasons = [f"{reason} {whole(count)}" for reason, count in (run.data_report.get("held_out") or {}).items()]
    return "; held out: ".join(part for part in (words, listed(reasons) if reasons else "") if part)


def _left_out(run: RunFiles) -> str:
    bad, long = (run.data_report.get(key) or {} for key in ("bad_lines", "too_long"))
    parts = [counted(bad["count"], "line") + " that are no pair"] if bad.get("count") else []
    if long.get("count"):
        parts.append(
            f"{counted(long['count'], 'pair')} longer than {whole(long.get('limit'))} tokens ({long.get('policy')})"
        )
    return listed(parts) if parts else ""


def _tokens(run: RunFiles) -> str:
    tokens, tokenizer = run.data_report.get("tokens") or {}, run.config.get("tokenizer") or {}
    kind = f"tokenizer {tokenizer['kind']}" if tokenizer.get("kind") else ""
    if not tokens:
        return kind
    per_answer = f"{decimal(tokens.get('per_answer'), 1)} in the answer, end token included"
    return f"{decimal(tokens.get('per_example'), 1)} per pair, {per_answer}; {kind}".rstrip("; ")


def _model(run: RunFiles) -> str:
    model, parameters = run.config.get("model") or {}, run.metrics.get("parameters")
    parts = [str(model.get("architecture") or "")]
    if parameters is not None:
        parts.append(f"{size(parameters)} parameters")
    named = (("width", "hidden_size"), ("layers", "layers"), ("context", "context"))
    parts += [f"{label} {model[key]}" for label, key in named if model.get(key) is not None]
    return ", ".join(part for part in parts if part)


def _optimizer(run: RunFiles) -> str:
    optimizer, data = run.config.get("optimizer") or {}, run.config.get("data") or {}
    parts = [str(optimizer.get("kind") or "")]
    if (rate := finite(optimizer.get("lr"))) is not None:
        parts.append(f"learning rate {rate:g}, {optimizer.get('schedule') or 'constant'}")
    if data.get("batch_size") is not None:
        unit = "row" if data.get("packing") else "pair"
        length = f" of {whole(data.get('row_tokens'))} tokens" if data.get("packing") else ""
        parts.append(f"{counted(data['batch_size'], unit)}{length} a batch")
    return "; ".join(part for part in parts if part)


def _epochs(run: RunFiles) -> str:
    metrics, limit = run.metrics, (run.config.get("trainer") or {}).get("max_epochs")
    if metrics.get("epochs_run") is None:
        return f"{len(run.epochs)}, not to the end" if run.epochs else ""
    words = whole(metrics["epochs_run"]) + (f" of at most {whole(limit)}" if (finite(limit) or 0) > 0 else "")
    if metrics.get("stopped_early"):
        wanted, recall = finite(run.config.get("stop_at_recall")), finite(metrics.get("final_train_recall"))
        reached = wanted is not None and recall is not None and recall >= wanted
        words += ", stopped once recall was reached" if reached else ", stopped early"
    if metrics.get("best_epoch") is not None:
        monitor = run.config.get("monitor")
        words += f"; the best is epoch {whole(metrics['best_epoch'])}" + (f", by {monitor}" if monitor else "")
    loss = finite(metrics.get("best_val_loss"))
    return words + (f"; its validation loss {loss:.4f}" if loss is not None else "")


def _weights(run: RunFiles) -> str:
    kept = run.metrics.get("exported_weights")
    return {"best": "of the best epoch", "last": "of the last epoch"}.get(kept, str(kept)) if kept else ""


def _cost(run: RunFiles) -> str:
    metrics = run.metrics
    parts = []
    if finite(metrics.get("seconds")) is not None:
        parts.append(f"{duration(metrics['seconds'])} in total, without start-up")
    if finite(metrics.get("train_seconds")) is not None:
        parts.append(f"{duration(metrics['train_seconds'])} of it training steps")
    if finite(metrics.get("tokens_per_second")) is not None:
        parts.append(f"{counted(metrics['tokens_per_second'], 'token')} a second")
    if (memory := finite(metrics.get("peak_memory"))) is not None:
        parts.append(f"{memory / 1e9:.2f} GB of memory at most")
    return ", ".join(parts)


def _plain(value: object) -> str:
    return ABSENT if value is None else str(value)
