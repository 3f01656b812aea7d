"""What loggers have of a run: its curves and its settings. A value of a step that was repeated replaces the former."""

import csv
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

Points = dict[str, list[tuple[int, float]]]


def of_csv(folder: Path, name: str | None = None, tags: str = "") -> tuple[Points, dict[str, str]]:
    found: dict[str, dict[int, float]] = {}
    versions = sorted((folder / "csv").iterdir())
    for version in versions:
        with (version / "metrics.csv").open() as file:
            for row in csv.DictReader(file):
                for tag, text in row.items():
                    if tag != "step" and text:
                        found.setdefault(tag, {})[int(row["step"])] = float(text)
    settings = yaml.safe_load((versions[-1] / "hparams.yaml").read_text())
    return {tag: list(points.items()) for tag, points in found.items()}, {k: str(v) for k, v in settings.items()}


def of_mlflow(folder: Path, name: str | None = None, tags: str = "") -> tuple[Points, dict[str, str]]:
    from mlflow.tracking import MlflowClient

    client = MlflowClient()
    experiment = client.get_experiment_by_name("qa_lm")
    assert experiment
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    assert run.info.run_name == (name or "/".join(folder.parts[-2:]))
    assert run.data.tags.get("tags", "") == tags
    histories = {tag: client.get_metric_history(run.info.run_id, tag) for tag in run.data.metrics}
    return {tag: [(each.step, each.value) for each in found] for tag, found in histories.items()}, run.data.params


def of_wandb(folder: Path, name: str | None = None, tags: str = "") -> tuple[Points, dict[str, str]]:
    files = sorted((folder / "wandb").glob("offline-run-*/*.wandb"))
    found: Points = {}
    settings: dict[str, str] = {}
    for record in (record for file in files for record in wandb_records(file.read_bytes())):
        if record.HasField("run"):
            assert record.run.display_name == (name or "/".join(folder.parts[-2:]))
            assert ", ".join(record.run.tags) == tags
        for each in record.config.update:
            settings[each.key or ".".join(each.nested_key)] = str(json.loads(each.value_json))
        row = {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
        for tag in row.keys() - {"trainer/global_step"}:
            if not tag.startswith("_"):
                found.setdefault(tag, []).append((row["trainer/global_step"], float(row[tag])))
    return found, settings


def wandb_records(content: bytes) -> Iterator[Any]:
    """The records of wandb's file: LevelDB's log format behind 7 bytes."""
    from wandb.proto import wandb_internal_pb2

    messages: Any = wandb_internal_pb2  # its classes are made when it is imported
    place, whole = 7, b""
    while place + 7 <= len(content):
        left = 32768 - place % 32768
        if left < 7:
            place += left
            continue
        _, length, kind = struct.unpack("<IHB", content[place : place + 7])
        whole += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # a whole one, or the last part
            yield messages.Record.FromString(whole)
            whole = b""


GOT = {"csv": of_csv, "wandb": of_wandb, "mlflow": of_mlflow}
