"""The words that users of Lightning and Hydra type first, and what they are here."""

from qa_lm.config.trainer_arguments import trainer_parameters

SETTINGS = {
    "ckpt_path": "here it is resume=RUN_FOLDER",
    "dataset": "here it is data.path=FILE, or data=hub data.hub=NAME",
    "epochs": "here it is trainer.max_epochs=",
    "extras": "here it is a single setting: trainer.enable_progress_bar=, data.cache=, export_weights=, ...",
    "file": "here it is data.path=FILE",
    "gpus": "here it is trainer.accelerator=gpu trainer.devices=N",
    "hparams_search": "here it is hydra/sweeper=optuna, or sweep= with -m",
    "learning_rate": "here it is optimizer.lr=",
    "logger": "here it is loggers=[tensorboard,csv]",
    "max_epoch": "here it is trainer.max_epochs=",
    "num_epochs": "here it is trainer.max_epochs=",
    "num_train_epochs": "here it is trainer.max_epochs=",
    "num_workers": "here it is data.workers=",
    "optimized_metric": "here it is monitor=",
    "output_dir": "here it is hydra.run.dir=FOLDER",
    "path": "here it is data.path=FILE",
    "paths": "the run folder is hydra.run.dir=FOLDER, the file of pairs is data.path=FILE",
    "task_name": "here it is name=",
    "test": "data.test_path=FILE is asked after training, and scripts/evaluate.py RUN_FOLDER asks a finished run",
    "train": "scripts/train.py always trains; scripts/evaluate.py RUN_FOLDER asks a finished run",
    "wandb": "here it is loggers=[tensorboard,wandb]",
}
"""A key, or the first part of one, to what it is here."""
CHOICES = {
    ("trainer", "mps"): "trainer.accelerator=mps",
    ("trainer", "ddp_sim"): "trainer=ddp trainer.accelerator=cpu",
    ("debug", "default"): "debug=fast",
    ("debug", "fdr"): "debug=fast",
    ("debug", "limit"): "trainer.limit_train_batches=N",
    ("debug", "profiler"): "debug=profile",
    ("callbacks", "default"): "callbacks=none; checkpoints and early stopping have settings of their own",
    ("callbacks", "early_stopping"): "early_stopping.patience= (null: none)",
    ("callbacks", "model_checkpoint"): "checkpoint.*; the best and the last are always kept",
    ("callbacks", "rich_progress_bar"): "trainer.enable_progress_bar=",
    ("trainer", "fsdp"): "trainer.accelerator=gpu trainer.devices=N trainer.strategy=fsdp",
    ("loggers", "null"): "loggers=none",
    ("loggers", "false"): "loggers=none",
    ("loggers", "many_loggers"): "loggers=[tensorboard,csv,wandb]",
}
"""A group and a choice that it does not have, to what it is here."""
DATA_SUFFIXES = (".jsonl", ".json", ".csv", ".tsv", ".parquet", ".xlsx", ".txt", ".gz")


def setting_here(key: str) -> str | None:
    """What a key that the schema does not have is called here, in words; None if it is none of the usual ones."""
    if known := SETTINGS.get(key) or SETTINGS.get(key.partition(".")[0]):
        return known
    return f"here it is trainer.{key}=" if key in trainer_parameters() else None


def choice_here(group: str, choice: str) -> str | None:
    """What a choice that a group does not have is called here; None if it is none of the usual ones."""
    if group == "data" and choice.lower().endswith(DATA_SUFFIXES):
        return f"data.path={choice}"
    return CHOICES.get((group, choice.lower()))
