"""What was trained on what, on which machine, and how to do it again."""

import shlex

from qa_lm.reporting.run.command import COMMAND, given_command, training_program
from qa_lm.reporting.wording import ABSENT, counted, decimal, duration, listed, size, whole
from qa_lm.run.reader import RunFiles, finite

Fact = tuple[str, str]


def source_names(run: RunFiles) -> str:
    """The files or data sets of the pairs."""
    return listed(list(run.data_report["sources"]))


def run_facts(run: RunFiles) -> list[Fact]:
    """Labels and values: data, model, training, cost. What is not known is left out."""
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
    """Labels and values: machine, versions, code, data."""
    environment = run.environment
    git = environment["git"]  # null outside a checkout
    changed = ", with changes that are in no commit" if git and git["changed"] else ""
    facts = [
        ("Started", environment["started"]),
        ("Machine", environment["platform"]),
        ("GPUs", listed(environment["gpus"]) or "none"),
        ("Threads", str(environment["threads"])),
        ("Python", environment["python"]),
        ("Packages", ", ".join(f"{name} {version}" for name, version in environment["packages"].items())),
        ("Code", f"commit {git['commit']}{changed}" if git else ""),
        ("Data, SHA-256", environment["data_sha256"]),
        ("Seed", str(environment["seed"])),
    ]
    return [(label, value) for label, value in facts if value]


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
    if run.environment["git"] and run.environment["git"]["changed"]:
        notes.append("The code had changes that are in no commit; the commit alone may give another result.")
    if kept[0] in ("train.py", COMMAND):
        kept = [*training_program(run.environment), *kept[1:]]
    return shlex.join(kept), notes


def _data(run: RunFiles) -> str:
    counts = run.data_report["counts"]
    trained = run.metrics.get("pairs_trained", counts["train"])
    sides = [f"{whole(trained)} for training", f"{whole(counts['validation'])} held out for validation"]
    if never := run.metrics.get("pairs_never_trained"):
        sides.insert(1, f"{whole(never)} that no training step came to")
    if counts["test"]:
        sides.append(f"{whole(counts['test'])} for the test")
    return f"{source_names(run)}: {counted(counts['pairs'], 'pair')}, {listed(sides)}"


def _prompt(run: RunFiles) -> str:
    data = run.config["data"]
    return f"{data['prompt']}{data['completion']}".replace("\n", "\\n")


def _split(run: RunFiles) -> str:
    data = run.config["data"]
    words = "by files" if data["validation_path"] else f"by {data['split']}, seed {_plain(data['split_seed'])}"
    reasons = [f"{reason} {whole(count)}" for reason, count in run.data_report["held_out"].items()]
    return f"{words}; held out: {listed(reasons)}" if reasons else words


def _left_out(run: RunFiles) -> str:
    bad, long = run.data_report["bad_lines"], run.data_report["too_long"]
    parts = [counted(bad["count"], "line") + " that are no pair"] if bad["count"] else []
    if long["count"]:
        parts.append(f"{counted(long['count'], 'pair')} longer than {whole(long['limit'])} tokens ({long['policy']})")
    return listed(parts)


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
        batch = f"{counted(data['batch_size'], 'row')} of {whole(data['row_tokens'])} tokens a batch"
    else:
        batch = f"{counted(data['batch_size'], 'pair')} a batch"
    return f"{optimizer['kind']}; learning rate {finite(optimizer['lr']):g}, {optimizer['schedule']}; {batch}"


def _epochs(run: RunFiles) -> str:
    metrics, limit = run.metrics, run.config["trainer"].get("max_epochs")
    if not metrics:
        return f"{len(run.epochs)}, not to the end" if run.epochs else ""
    words = whole(metrics["epochs_run"]) + (f" of at most {whole(limit)}" if (finite(limit) or 0) > 0 else "")
    if metrics["stopped_early"]:
        wanted, recall = run.config["stop_at_recall"], metrics["final_train_recall"]
        reached = wanted is not None and recall is not None and recall >= wanted
        words += ", stopped once recall was reached" if reached else ", stopped early"
    if metrics["best_epoch"] is not None:
        words += f"; the best is epoch {whole(metrics['best_epoch'])}, by {run.config['monitor']}"
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
        f"{duration(metrics['seconds'])} in total, without start-up",
        f"{duration(metrics['train_seconds'])} of it training steps",
    ]
    if metrics["tokens_per_second"] is not None:
        parts.append(f"{counted(metrics['tokens_per_second'], 'token')} a second")
    if metrics["peak_memory"] is not None:
        parts.append(f"{metrics['peak_memory'] / 1e9:.2f} GB of memory at most")
    return ", ".join(parts)


def _plain(value: object) -> str:
    return ABSENT if value is None else str(value)
