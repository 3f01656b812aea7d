"""The schema of a run: the only list of knobs, each with its meaning and unit.

- `conf/` holds values; every value lands in one of these dataclasses, so a key that is not here cannot slip in.
- `qa_lm.config.compose` puts the YAML files onto this schema; the rest of the package sees only these objects.
- `trainer` is open here: it takes any argument of `lightning.Trainer`, checked against the Trainer's own signature
  in `qa_lm.config.trainer_arguments`.
- `model`, `optimizer` and each node of `loggers` and `callbacks` can name a class by `_target_`; their further keys are
  then arguments of that class, checked by `qa_lm.config.targets`.
"""

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from qa_lm.config.enums import (
    BadLines,
    FailedWriteChoice,
    LossWeighting,
    Mode,
    OptimizerKind,
    ScheduleKind,
    TooLong,
    TrainOn,
    Weights,
)


@dataclass
class DataConfig:
    """Where the pairs come from, how they are split, and how they become batches."""

    builtin: str | None = None
    """Name of a set of pairs shipped with qa_lm, in `qa_lm/data/builtin/`."""
    path: Any = None
    """File of pairs, a glob, or a list of these: .jsonl, .json, .csv, .tsv, .xlsx, .parquet, each also with .gz."""
    hub: str | None = None
    """Name of a Hugging Face data set, or a local folder of one; needs the package `datasets`."""
    hub_subset: str | None = None
    """The hub data set's configuration, where it has several."""
    hub_split: str = "train"
    """The hub data set's split to read."""
    validation_path: Any = None
    """Files like `path` whose pairs are held out; then `split` is not used."""
    test_path: Any = None
    """Files like `path` whose pairs are only asked at the end."""
    question: str | None = None
    """Column of the question; null recognises question, prompt, instruction, Q and the like, in ten languages."""
    answer: str | None = None
    """Column of the answer; null recognises answer, completion, output, A and the like. A list's first is trained."""
    group: str | None = None
    """Column of the fact that several pairs state in different words, or `answer`; null recognises group."""
    columns: list[str] | None = None
    """Columns of CSV, TSV and Excel files without a header line."""
    encoding: str = "utf-8"
    """Encoding of text files; UTF-16 and UTF-32 with a byte order mark are recognised."""
    bad_lines: BadLines = BadLines.error
    """Lines that are not a pair: `error` ends the run, `skip` leaves them out and counts them."""
    unanswerable: str | None = None
    """Questions without an answer: null ends the run, `skip` leaves them out, another text is trained as the answer."""
    split: str = "question"
    """Which pairs are held out: `shuffle`, `question`, `near`, `fact`, `phrasing`, `phrasing_and_fact`, or a split of
    your own (docs/extending.md)."""
    split_seed: int = 42
    """Seed of the split."""
    train_fraction: float = 0.8
    """Share that is trained: of the pairs, or of the facts where whole facts are held out; 1.0 trains all of them."""
    train_pairs: int | None = None
    """Number of training pairs to use; null uses all. A smaller number takes a subset of a larger one."""
    held_out_phrasings: int = 1
    """Phrasings held out of each trained fact, where the split holds out phrasings."""
    too_long: TooLong = TooLong.error
    """Pairs longer than a row or `model.context`: `error`, `drop`, or `truncate_question` (at its front)."""
    packing: bool = False
    """Whether a row holds several whole pairs, which cannot attend to one another."""
    row_tokens: int | None = 256
    """Tokens of a packed row; null chooses them from the lengths of the pairs."""
    batch_size: int | None = 1
    """Rows per step and process; without packing a row is one pair; null chooses it from the number of tokens."""
    shuffle: bool = False
    """Whether each epoch has a different order of pairs, drawn from `seed` and the epoch's number."""
    workers: int = 0
    """Processes that prepare training batches; 0 uses the training process itself, which is fast enough on a CPU."""
    prompt: str = "{question}"
    """Text before an answer; it may name any column: `{context}\\n{question}`. Write {{ for a brace."""
    completion: str = " {answer}"
    """Text of the answer after the prompt; it may name any column too."""
    train_on: TrainOn = TrainOn.all
    """Targets that carry loss: `all` (question and answer) or `answer`. The EOS always does."""
    cache: str | None = None
    """Folder where prepared data is kept; null for the user's cache folder; `off` to keep nothing."""


@dataclass
class TokenizerConfig:
    """How text becomes ids."""

    kind: str = "gpt2"
    """`gpt2` (GPT-2's vocabulary), `bpe` (a byte-level BPE trained on the training pairs), `folder` or `hub`."""
    path: str | None = None
    """For `folder`: a folder with tokenizer.json. For `hub`: a model's name on the Hugging Face hub."""
    vocab_size: int | None = None
    """For `bpe`: the largest vocabulary, at least 257 tokens (every byte and EOS); null chooses it from the data."""


@dataclass
class ModelConfig:
    """The causal language model, from scratch."""

    architecture: str = "gpt2"
    """A causal-LM model type of transformers: gpt2, llama, qwen3, ..."""
    hidden_size: int | None = MISSING
    """Width of the residual stream; null chooses it, and the next three, from the data."""
    layers: int | None = MISSING
    """Number of blocks."""
    heads: int | None = MISSING
    """Attention heads per block."""
    context: int | None = 256
    """Longest sequence in tokens, question and answer together; null chooses it from the data."""
    dropout: float = 0.0
    """Dropout probability, wherever the architecture has dropout."""
    extra: dict[str, Any] = field(default_factory=dict)
    """Further arguments of the architecture's transformers config, by their own names."""
    _target_: str | None = None
    """Class of the model, a `PreTrainedModel`; further keys are arguments of its config class. null: `architecture`."""


@dataclass
class OptimizerConfig:
    """AdamW, or Muon for the hidden matrices and AdamW for the rest, or any optimizer class."""

    kind: OptimizerKind = OptimizerKind.adamw
    """`adamw` or `muon`."""
    lr: float | None = 5e-5
    """Highest learning rate; null chooses it from the data."""
    betas: tuple[float, float] | None = None
    """AdamW: decay of the running means of the gradient and of its square; null: 0.9 and 0.999."""
    eps: float | None = None
    """AdamW: added to the denominator; null: 1e-8."""
    weight_decay: float | None = None
    """Decoupled weight decay of matrices per step, times the learning rate; null: 0.01."""
    decay_vectors: bool | None = None
    """AdamW: whether norms and biases decay too, as in torch's default and in the tutorial; null: false."""
    momentum: float | None = None
    """Muon: decay of the running mean of the gradient; null: 0.95."""
    schedule: ScheduleKind = ScheduleKind.constant
    """Learning rate after the warm-up: `constant`, `linear` or `cosine` to the end, or `wsd`: constant, then down."""
    schedule_epochs: int | None = None
    """Epochs of the schedule, after which the learning rate keeps its last value; null for `trainer.max_epochs`."""
    warmup_steps: int = 0
    """Steps at the start in which the learning rate rises linearly."""
    final_lr: float = 0.0
    """Learning rate at the schedule's end, as a share of `lr`."""
    decay_share: float = 0.2
    """`wsd`: share of the steps, at the end, in which the learning rate falls."""
    extra: dict[str, Any] = field(default_factory=dict)
    """Arguments of the class that `_target_` names, by their own names."""
    _target_: str | None = None
    """Class of the optimizer; further keys are arguments of the class. null: the optimizer that `kind` names."""


@dataclass
class EarlyStoppingConfig:
    """When to stop before `trainer.max_epochs`."""

    patience: int | None = 5
    """Validations in a row without improvement of `monitor` before training stops; null never stops."""
    min_delta: float = 0.0
    """Smallest change that counts as improvement."""


@dataclass
class EvaluationConfig:
    """The trained pairs looked at in each validation, and the questions asked of the exported model at the end."""

    recall_pairs: int = 512
    """Size of the sample of trained pairs, drawn once, that gives `train/recall` at each validation; 0 for none."""
    max_pairs: int = 1000
    """Largest number of pairs of each split answered at the end; the first ones are taken."""
    batch_size: int = 32
    """Questions answered at once."""
    max_new_tokens: int = 64
    """Longest answer generated, in tokens; raised to the longest true answer."""


@dataclass
class CheckpointConfig:
    """When `best.ckpt` and `last.ckpt` are written, apart from an interruption and the end of training."""

    every_seconds: float | None = 60.0
    """Most seconds of training that a crash can cost; 0 saves after every step, null never saves by time."""
    every_steps: int | None = None
    """Most optimizer steps that a crash can cost; null never saves by steps."""
    failed_write: FailedWriteChoice = FailedWriteChoice.stop
    """When a checkpoint cannot be written: `stop` ends the run (exit code 1), `go_on` warns and continues."""


@dataclass
class TrainConfig:
    """One training run."""

    seed: int = 42
    """Seed of weights, dropout and the order of pairs; recorded in the run folder."""
    resume: str | None = None
    """Run folder to resume, exactly where it was interrupted; `auto` resumes the run in the folder that `hydra.run.dir`
    names, or starts one there."""
    monitor: str = "val/loss"
    """Metric that early stopping and the best checkpoint follow."""
    monitor_mode: Mode = Mode.min
    """Whether `monitor` is better when smaller (`min`) or larger (`max`)."""
    stop_at_recall: float | None = None
    """Stop when `train/recall` has reached this share of what the pairs allow, in two validations in a row."""
    compile: bool | None = None
    """Whether the network is compiled; null compiles it if the run is long enough to pay for it."""
    ledger: bool = True
    """Whether the loss and exact match of each trained pair are kept epoch by epoch, for `ledger.parquet`. It takes 5
    bytes of memory per trained pair and epoch."""
    export_weights: Weights = Weights.best
    """Weights that `model/` holds and that answer the questions at the end: the best by `monitor`, or the last."""
    max_skipped_steps: int = 10
    """Steps in a row with a loss or gradient that is not finite (their update is skipped) before training ends."""
    loss_weighting: LossWeighting = LossWeighting.pair
    """`pair`: mean over pairs of each pair's mean token loss (the tutorial's). `token`: mean over tokens."""
    data: DataConfig = field(default_factory=DataConfig)
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    early_stopping: EarlyStoppingConfig = field(default_factory=EarlyStoppingConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    loggers: dict[str, Any] = field(default_factory=dict)
    """Loggers of the Trainer: a name of your own to `_target_`, a class, and its arguments. Arguments that only a run
    knows are filled in: the run folder as `save_dir`, the run's name and tags, the id of a resumed run."""
    callbacks: dict[str, Any] = field(default_factory=dict)
    """Further callbacks of the Trainer: a name of your own to `_target_`, a class, and its arguments."""
    trainer: dict[str, Any] = field(default_factory=dict)
    """Arguments of `lightning.Trainer`, by name; an argument that has no meaning here is refused with a reason."""
    name: str | None = None
    """Name of the run, for people: in its report, its loggers and TensorBoard; null: the name of the run folder."""
    tags: list[str] = field(default_factory=list)
    """Words to find the run by, in its report and its loggers."""
    trust: Any = None
    """Package, or list of packages, whose classes `_target_` may name; taken from the command line only."""
