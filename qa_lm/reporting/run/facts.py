"""Facts of a run: data, model, training, machine, and how to reproduce it."""

import shlex

from qa_lm.reporting.run.command import COMMAND, given_command, training_program
from qa_lm.reporting.wording import decimal, duration, format_int, list_names, pluralize, size
from qa_lm.run.reader import RunFiles, finite

Fact = tuple[str, str]


def source_names(run: RunFiles) -> str:
    """Names of the files or data sets that the pairs come from."""
    return list_names(list(run.data_report["sources"]))


def run_facts(run: RunFiles) -> list[Fact]:
    """Labels and values on data, model, training and cost. Unknown values are left out."""
    facts = [
        ("Data", _data(run)),
        ("Split", _split(run)),
        ("Left out", _left_out(run)),
        ("Prompt template", _prompt(run)),
        ("Tokens", _tokens(run)),
        ("Model", _model(run)),
        ("Optimizer", _optimizer(run)),
        ("Epochs", _epochs(run)),
        ("Weights kept", _weights(run)),
        ("Cost", _cost(run)),
    ]
    return [(label, value) for label, value in facts if value]


def environment_facts(run: RunFiles) -> list[Fact]:
    """Labels and values on machine, versions, code and data."""
    environment = run.environment
    git = environment["git"]  # null outside a checkout
    changed = ", with uncommitted changes" if git and git["changed"] else ""
    facts = [
        ("Started", environment["started"]),
        ("Machine", environment["platform"]),
        ("GPUs", list_names(environment["gpus"]) or "none"),
        ("Threads", str(environment["threads"])),
        ("Python", environment["python"]),
        ("Packages", ", ".join(f"{name} {version}" for name, version in environment["packages"].items())),
        ("Code", f"commit {git['commit']}{changed}" if git else ""),
        ("Data, SHA-256", environment["data_sha256"]),
        ("Seed", str(environment["seed"])),
    ]
    return [(label, value) for label, value in facts if value]


def reproduction(run: RunFiles) -> tuple[str, list[str]]:
    """The command that reproduces the run, empty if it is not known, and notes on it."""
    command = given_command(run.environment)
    if not command:
        return "", []
    notes = ["Paths are relative to the folder where the command was started."]
    kept = [part for part in command if not part.lstrip("+").startswith("hydra.run.dir=")]
    if len(kept) < len(command):
        notes.append("The run folder's name is left out, because an existing run is not overwritten.")
    if {"-m", "--multirun"} & set(command):
        notes.append("This is the command of a whole sweep; the run is one of its jobs.")
    if run.environment["git"] and run.environment["git"]["changed"]:
        notes.append("The code had uncommitted changes; the commit alone may give another result.")
    if kept[0] in ("train.py", COMMAND):
        kept = [*training_program(run.environment), *kept[1:]]
    return shlex.join(kept), notes


def _data(run: RunFiles) -> str:
    counts = run.data_report["counts"]
    trained = run.metrics.get("pairs_trained", counts["train"])
    sides = [f"{format_int(trained)} for training", f"{format_int(counts['validation'])} held out for validation"]
    if never := run.metrics.get("pairs_never_trained"):
        sides.insert(1, f"{format_int(never)} never trained")
    if counts["test"]:
        sides.append(f"{format_int(counts['test'])} for testing")
    return f"{source_names(run)}: {pluralize(counts['pairs'], 'pair')}, {list_names(sides)}"


def _prompt(run: RunFiles) -> str:
    data = run.config["data"]
    text = f"{data['prompt']}{data['completion']}".replace("\n", "\\n")
    return f"{text}, as turns of the tokenizer's chat template" if data.get("template") == "chat" else text


def _split(run: RunFiles) -> str:
    data = run.config["data"]
    words = "by files" if data["validation_path"] else f"by {data['split']}, seed {data['split_seed']}"
    reasons = [f"{reason} {format_int(count)}" for reason, count in run.data_report["held_out"].items()]
    return f"{words}; held out: {list_names(reasons)}" if reasons else words


def _left_out(run: RunFiles) -> str:
    bad, long = run.data_report["bad_lines"], run.data_report["too_long"]
    parts = [pluralize(bad["count"], "line") + " without a valid pair"] if bad["count"] else []
    if long["count"]:
        parts.append(
            f"{pluralize(long['count'], 'pair')} longer than {format_int(long['limit'])} tokens ({long['policy']})"
        )
    return list_names(parts)


def _tokens(run: RunFiles) -> str:
    tokens = run.data_report["tokens"]
    per_answer = f"{decimal(tokens['per_answer'], 1)} in the answer, end token included"
    return f"{decimal(tokens['per_example'], 1)} per pair, {per_answer}; tokenizer {run.config['tokenizer']['kind']}"


def _model(run: RunFiles) -> str:
    model, parameters = run.config["model"], run.metrics.get("parameters")
    parts = [model["architecture"]]
    if parameters is not None:
        parts.append(f"{size(parameters)} parameters")
    return ", ".join([*parts, f"width {model['hidden_size']}, layers {model['layers']}, context {model['context']}"])


def _optimizer(run: RunFiles) -> str:
    optimizer, data = run.config["optimizer"], run.config["data"]
    if data["packing"]:
        batch = f"{pluralize(data['batch_size'], 'row')} of {format_int(data['row_tokens'])} tokens per batch"
    else:
        batch = f"{pluralize(data['batch_size'], 'pair')} per batch"
    return f"{optimizer['kind']}; learning rate {finite(optimizer['lr']):g}, {optimizer['schedule']}; {batch}"


def _epochs(run: RunFiles) -> str:
    metrics, limit = run.metrics, run.config["trainer"].get("max_epochs")
    if not metrics:
        return f"{len(run.epochs)}, unfinished" if run.epochs else ""
    words = format_int(metrics["epochs_run"]) + (f" of at most {format_int(limit)}" if (finite(limit) or 0) > 0 else "")
    if metrics["stopped_early"]:
        wanted, recall = run.config["stop_at_recall"], metrics["final_train_recall"]
        reached = wanted is not None and recall is not None and recall >= wanted
        words += ", stopped when the target recall was reached" if reached else ", stopped early"
    if metrics["best_epoch"] is not None:
        words += f"; the best is epoch {format_int(metrics['best_epoch'])}, by {run.config['monitor']}"
    loss = metrics["best_val_loss"]
    return words + (f"; its validation loss {loss:.4f}" if loss is not None else "")


def _weights(run: RunFiles) -> str:
    kept = run.metrics.get("exported_weights")
    return f"of the {kept} epoch" if kept else ""


def _cost(run: RunFiles) -> str:
    metrics = run.metrics
    if not metrics:
        return ""
    parts = [
        f"{duration(metrics['seconds'])} in total",
        f"{duration(metrics['train_seconds'])} of it in training steps",
    ]
    if metrics["tokens_per_second"] is not None:
        parts.append(f"{pluralize(metrics['tokens_per_second'], 'token')} per second")
    if metrics["peak_memory"] is not None:
        parts.append(f"{metrics['peak_memory'] / 1e9:.2f} GB peak memory")
    return ", ".join(parts)
