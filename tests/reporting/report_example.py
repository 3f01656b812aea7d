"""A run folder by hand, with and without hostile text, for the tests of the report."""

import json
from pathlib import Path
from typing import Any

import yaml

HOSTILE = (
    "<script>document.title='ran'</script><img src=x onerror=\"document.title='ran'\">'\"|`x`\n# y\n| a |\x07\u202e"
)
CONFIG: dict[str, Any] = {
    "seed": 42,
    "monitor": "val/loss",
    "stop_at_recall": None,
    "data": {"path": "faq.jsonl", "hub": None, "validation_path": None, "split": "question"}
    | {"split_seed": 7, "packing": True, "row_tokens": 64, "batch_size": 16}
    | {"prompt": "{question}\n", "completion": " {answer}"},
    "tokenizer": {"kind": "bpe"},
    "model": {"architecture": "llama", "hidden_size": 256, "layers": 1, "context": 256},
    "optimizer": {"kind": "muon", "lr": 0.0045, "schedule": "linear", "schedule_epochs": None},
    "trainer": {"max_epochs": 60},
}  # fmt: skip
METRICS = {
    "best_epoch": 2,
    "best_val_loss": 3.5,
    "exported_weights": "best",
    "stopped_early": True,
    "epochs_run": 3,
    "final_train_recall": 0.75,
    "recall": 0.984,
    "pairs_trained": 1050,
    "parameters": 2888448,
    "seconds": 125.0,
    "train_seconds": 90.0,
    "tokens_per_second": 11431.2,
    "peak_memory": 776167424,
}
EPOCHS = """epoch,step,train_loss,val_loss,val_exact_match,train_recall
1,8,6.8335,5.9,0.0,0.004
2,16,2.25,3.5,0.25,0.5
3,24,1.125,,,0.75
"""
DATA = {
    "sources": {"faq.jsonl": "question = question"},
    "counts": {"pairs": 1358, "train": 1050, "validation": 308, "test": 0},
    "tokens": {"per_example": 16.4, "per_answer": 5.6},
    "bad_lines": {"count": 2},
    "too_long": {"count": 0},
    "held_out": {"unseen fact": 133},
    "warnings": ["repeats of an earlier pair: 50"],
}
ENVIRONMENT = {
    "started": "2026-11-25T08:52:16+00:00",
    "command": ["train.py", "experiment=recall", "data.path=my pairs.jsonl", "hydra.run.dir=out"],
    "git": {"commit": "004b7003", "changed": True},
    "packages": {"torch": "2.13.0"},
    "gpus": [],
    "platform": "Linux",
    "python": "3.11.7",
    "threads": 2,
    "seed": 42,
    "data_sha256": "a0",
}


def measured(value: float, low: float, high: float) -> dict[str, float]:
    return {"value": value, "low": low, "high": high}


def board_row(
    split: str, name: str, n: int, exact: dict[str, float], nearest: dict[str, float] | None
) -> dict[str, Any]:
    baselines: dict[str, Any] | None = nearest and {
        "nearest_question": nearest,
        "most_common_answer": measured(0.01, 0.0, 0.02),
    }
    shares: dict[str, Any] = {
        "exact_match": exact,
        "normalised_exact_match": measured(0.9, 0.8, 0.95),
        "f1": measured(0.93, 0.9, 0.96),
    }
    return {"split": split, "name": name, "n": n, "baselines": baselines, **shares}


BOARD: dict[str, Any] = {
    "rows": [
        board_row("train", "trained pairs", 512, measured(0.984, 0.969, 0.992), None),
        board_row("validation", "all held-out pairs", 308, measured(0.568, 0.512, 0.622), measured(0.4, 0.35, 0.45)),
        board_row("validation", "unseen fact", 133, measured(0.0, 0.0, 0.028), measured(0.0, 0.0, 0.028)),
        board_row("test", "all test pairs", 40, measured(0.1, 0.04, 0.23), measured(0.5, 0.35, 0.65)),
    ],
    "stopping": [
        {"split": "train", "n": 512, "stop_rate": 0.9, "cut_early": 3, "run_on": 2, "eos_probability": 0.97},
    ],
    "confidence": {
        "method": "isotonic",
        "fitted_on": {"validation": 133, "train": 400},
        "held_out": {"pairs": 133, "right": 76, "needed": 20},
        "curve": [
            {"threshold": 0.9, "coverage": 0.4, "precision": 0.97},
            {"threshold": 0.0, "coverage": 1.0, "precision": 0.57},
        ],
        "brier": 0.0831,
    },
    "warnings": ["few held-out pairs"],
}
LEDGER: dict[str, Any] = {
    "pairs": 1000,
    "learnt": 990,
    "never_learnt": 10,
    "forgotten": 12,
    "epochs": 9,
    "note": "",
    "worst": [
        {"place": "faq.jsonl:12", "question": "Which?", "answer": "That.", "learnt_at": None, "forgotten": 1}
        | {"last_loss": 0.8, "why": "never learnt; high loss"}
    ],
}


def answer(number: int, split: str = "train", right: bool = True, **changes: Any) -> dict[str, Any]:
    record = {"question": f"question {number}", "answer": f"answer {number}", "split": split, "held_out": ""}
    scores = {"exact_match": right, "normalised_exact_match": right, "f1": float(right), "stopped": True}
    more = {"generated": f"answer {number}" if right else "I do not know", "relation": "", "probability": None}
    more |= {"nearest_is_right": None, "most_common_is_right": None}
    return {**record, **scores, **more, **changes}


ANSWERS = [answer(1), answer(2, right=False), answer(3, "validation", right=False, probability=0.125)]
PARTS: dict[str, Any] = {
    "metrics.json": METRICS,
    "data_report.json": DATA,
    "environment.json": ENVIRONMENT,
    "board.json": BOARD,
    "ledger_summary.json": LEDGER,
}


def run_folder(root: Path, epochs: str = EPOCHS, answers: list[dict[str, Any]] = ANSWERS, **parts: Any) -> Path:
    """A run folder by hand; a part given as None is left out."""
    folder = root / "2026-11-25" / "04-16-36"
    folder.mkdir(parents=True)
    config = CONFIG | parts.pop("config", {})
    sections = {key: CONFIG[key] | value if isinstance(value, dict) else value for key, value in config.items()}
    (folder / "config.yaml").write_text(yaml.safe_dump(sections))
    (folder / "metrics.csv").write_text(epochs)
    (folder / "answers.jsonl").write_text("".join(json.dumps(each) + "\n" for each in answers))
    for name, content in (PARTS | {f"{key}.json": value for key, value in parts.items()}).items():
        if content is not None:
            (folder / name).write_text(json.dumps(content))
    return folder


def hostile_folder(root: Path) -> Path:
    """Foreign text wherever there can be some."""
    pair = {"question": HOSTILE, "answer": HOSTILE}
    return run_folder(
        root,
        answers=[answer(1, "validation", right=False, generated=HOSTILE, relation=HOSTILE, held_out=HOSTILE, **pair)],
        config=CONFIG | {"monitor": HOSTILE},
        metrics=METRICS | {"exported_weights": HOSTILE},
        data_report=DATA | {"sources": {HOSTILE: ""}, "warnings": [HOSTILE], "held_out": {HOSTILE: 1}},
        environment=ENVIRONMENT
        | {"command": ["train.py", HOSTILE], "platform": HOSTILE, "packages": {HOSTILE: HOSTILE}},
        board=BOARD | {"warnings": [HOSTILE], "rows": [board_row(HOSTILE, HOSTILE, 5, measured(0.5, 0.1, 0.9), None)]},
        ledger_summary=LEDGER | {"worst": [LEDGER["worst"][0] | pair | {"place": HOSTILE, "why": HOSTILE}]},
    )
