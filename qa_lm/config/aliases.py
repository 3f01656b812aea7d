"""Names that users of Lightning and Hydra try first, and the settings to use instead."""

from qa_lm.config.trainer_arguments import trainer_parameters

SETTINGS = {
    "data.builtin": "use data.path=tutorial or data.path=capitals",
    "early_stopping.min_delta": "any improvement counts; early_stopping.patience= and monitor= remain",
    "max_skipped_steps": "training ends after 10 skipped steps in a row",
    "optimizer.decay_share": "optimizer.schedule=wsd decays over the last fifth of the steps",
    "ckpt_path": "use resume=RUN_FOLDER",
    "dataset": "use data.path=FILE, or data=hub data.hub=NAME",
    "epochs": "use trainer.max_epochs=",
    "extras": "use a single setting: trainer.enable_progress_bar=, data.cache=, export_weights=, ...",
    "file": "use data.path=FILE",
    "gpus": "use trainer.accelerator=gpu trainer.devices=N",
    "hparams_search": "use hydra/sweeper=optuna, or sweep= with -m",
    "learning_rate": "use optimizer.lr=",
    "logger": "use loggers=[tensorboard,csv]",
    "max_epoch": "use trainer.max_epochs=",
    "num_epochs": "use trainer.max_epochs=",
    "num_train_epochs": "use trainer.max_epochs=",
    "num_workers": "use data.workers=",
    "optimized_metric": "use monitor=",
    "output_dir": "use hydra.run.dir=FOLDER",
    "path": "use data.path=FILE",
    "paths": "the run folder is hydra.run.dir=FOLDER, the file of pairs is data.path=FILE",
    "task_name": "use name=",
    "test": "data.test_path=FILE is evaluated after training; scripts/evaluate.py RUN_FOLDER evaluates again",
    "train": "scripts/train.py always trains; scripts/evaluate.py RUN_FOLDER evaluates a finished run",
    "wandb": "use loggers=[tensorboard,wandb]",
}
"""Unknown key, or its first part, to the hint for the user."""
CHOICES = {
    ("trainer", "mps"): "trainer.accelerator=mps",
    ("trainer", "ddp_sim"): "trainer=ddp trainer.accelerator=cpu",
    ("debug", "default"): "debug=fast",
    ("debug", "fdr"): "debug=fast",
    ("debug", "limit"): "trainer.limit_train_batches=N",
    ("debug", "profiler"): "debug=profile",
    ("callbacks", "default"): "callbacks=none; checkpoints and early stopping have settings of their own",
    ("callbacks", "early_stopping"): "early_stopping.patience= (null: none)",
    ("callbacks", "model_checkpoint"): "checkpoint.*; the best and the last checkpoint are always kept",
    ("callbacks", "rich_progress_bar"): "trainer.enable_progress_bar=",
    ("trainer", "fsdp"): "trainer=fsdp2",
    ("loggers", "null"): "loggers=none",
    ("loggers", "false"): "loggers=none",
    ("loggers", "many_loggers"): "loggers=[tensorboard,csv,wandb]",
}
"""Group and unknown choice to the setting to use instead."""
DATA_SUFFIXES = (".jsonl", ".json", ".csv", ".tsv", ".parquet", ".xlsx", ".txt", ".gz")


def setting_hint(key: str) -> str | None:
    """Return the hint for a key that the schema does not have; None if there is none."""
    if known := SETTINGS.get(key) or SETTINGS.get(key.partition(".")[0]):
        return known
    return f"use trainer.{key}=" if key in trainer_parameters() else None


def choice_hint(group: str, choice: str) -> str | None:
    """Return the setting to use instead of a choice that a group does not have; None if there is none."""
    if group == "data" and choice.lower().endswith(DATA_SUFFIXES):
        return f"data.path={choice}"
    return CHOICES.get((group, choice.lower()))
