"""The schema of a run: all settings, each with its meaning and unit.

- The files in `conf/` set values, which `qa_lm.config.compose` applies to this schema. Unknown keys are errors.
- `trainer` takes any argument of `lightning.Trainer`; `qa_lm.config.trainer_arguments` checks them.
- `model`, `optimizer` and each node of `loggers` and `callbacks` can name a class by `_target_`. Their further keys are
  then arguments of that class, which `qa_lm.config.targets` checks.
"""

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from qa_lm.config.budget.settings import BudgetConfig
from qa_lm.config.enums import (
    AnswerMode,
    BadLines,
    FailedWriteChoice,
    FinetuneMethod,
    LossWeighting,
    Mode,
    OptimizerKind,
    PromptKind,
    ScheduleKind,
    TooLong,
    TrainOn,
    Weights,
)


@dataclass
class DataConfig:
    """The pairs, their split, and the batches."""

    path: Any = None
    """File of pairs, a glob, or a list of these: .jsonl, .json, .csv, .tsv, .xlsx, .parquet, each also with .gz.
    `tutorial` and `capitals` are pairs that come with qa_lm."""
    hub: str | None = None
    """Name of a Hugging Face data set, or a local folder with one. It needs the package `datasets`."""
    hub_subset: str | None = None
    """Configuration of the hub data set, if it has several."""
    hub_split: str = "train"
    """Split of the hub data set to read."""
    validation_path: Any = None
    """Files like `path` whose pairs are held out for validation. `split` is then not used."""
    test_path: Any = None
    """Files like `path` whose pairs are used only for the evaluation at the end."""
    question: str | None = None
    """Column of the question. null recognises common names (question, prompt, instruction, Q) in ten languages."""
    answer: str | None = None
    """Column of the answer. null recognises common names (answer, completion, output, A); of a list the first."""
    group: str | None = None
    """Column that identifies the fact of paraphrased pairs, or `answer`. null uses a column named group."""
    columns: list[str] | None = None
    """Columns of CSV, TSV and Excel files without a header line."""
    encoding: str = "utf-8"
    """Encoding of text files. UTF-16 and UTF-32 with a byte order mark are recognised."""
    bad_lines: BadLines = BadLines.error
    """What to do with lines that are not a pair: `error` stops, `skip` leaves them out and counts them."""
    unanswerable: str | None = None
    """What to do with questions without an answer: null stops, `skip` leaves them out, any other text is trained as
    their answer."""
    split: str = "question"
    """Which pairs are held out: `shuffle`, `question`, `near`, `fact`, `phrasing`, `phrasing_and_fact`, or a split of
    your own (docs/extending.md)."""
    split_seed: int = 42
    """Seed of the split."""
    train_fraction: float = 0.8
    """Share of the pairs (or of the facts, if the split holds out facts) used for training. 1.0 uses all."""
    train_pairs: int | None = None
    """Number of training pairs to use. null uses all. A smaller number uses a subset of a larger one."""
    held_out_phrasings: int = 1
    """Number of phrasings held out per trained fact, if the split holds out phrasings."""
    too_long: TooLong = TooLong.error
    """What to do with pairs longer than a row or `model.context`: `error` stops, `drop` leaves them out,
    `truncate_question` removes the beginning of the question."""
    packing: bool = False
    """Whether a row contains several whole pairs, which cannot attend to each other."""
    row_tokens: int | None = 256
    """Tokens of a packed row. null chooses the number from the lengths of the pairs."""
    batch_size: int | None = 1
    """Rows per step and process; without packing a row is one pair. null chooses it from the number of tokens."""
    shuffle: bool = False
    """Whether the pairs are shuffled in each epoch, by `seed` and the number of the epoch."""
    augment: float = 0.0
    """Share of the training questions that each epoch rewrites as people write them: with a typo, in lower case,
    without a question mark, with a greeting. From 0 (off) to 1."""
    workers: int = 0
    """Number of processes that prepare training batches. 0 uses the training process, which is fast enough on a CPU."""
    template: PromptKind = PromptKind.plain
    """`plain` trains prompt and answer as text. `chat` writes them as turns of user and assistant, by the chat template
    of a pretrained model, or of `tokenizer=folder` or `tokenizer=hub`."""
    system: str | None = None
    """`chat`: text of the system turn. null leaves it to the chat template, an empty text asks for none."""
    prompt: str = "{question}"
    """Template of the text before an answer. It may name any column: `{context}\\n{question}`. Write {{ for a brace."""
    completion: str = " {answer}"
    """Template of the answer after the prompt. It may name any column too. `chat` drops spaces at its beginning."""
    train_on: TrainOn = TrainOn.all
    """Targets that contribute to the loss: `all` (question and answer) or `answer`. The EOS always contributes."""
    cache: str | None = None
    """Folder for prepared data. null uses the user's cache folder, `off` stores nothing."""


@dataclass
class TokenizerConfig:
    """The tokenizer."""

    kind: str = "gpt2"
    """`gpt2`, `bpe` (a byte-level BPE trained on the training pairs), `folder`, `hub` or `model` (of `model.path`)."""
    path: str | None = None
    """For `folder`: a folder with tokenizer.json. For `hub`: the name of a model on the Hugging Face hub."""
    vocab_size: int | None = None
    """For `bpe`: maximum number of tokens, at least 257 (every byte and EOS). null chooses it from the data."""
    trim: int | None = None
    """Keep only the tokens of the training pairs, all bytes, special tokens, and those of this many first merges, for
    byte-level BPE other than `bpe`. null keeps the whole vocabulary (docs/pretrained.md, "A smaller vocabulary")."""


@dataclass
class ModelConfig:
    """The causal language model, trained from scratch or from a pretrained model."""

    path: str | None = None
    """Pretrained model to start from: a transformers folder, a name on the Hugging Face hub, or a GGUF file. Its
    tokenizer is used too. null trains from scratch."""
    revision: str | None = None
    """Branch, tag or commit of a model on the hub."""
    gradient_checkpointing: bool = False
    """Whether to compute activations again in the backward pass instead of keeping them: less memory, slower steps."""
    architecture: str | None = "gpt2"
    """Model type of a causal language model in transformers: gpt2, llama, qwen3, ... null for a pretrained model."""
    hidden_size: int | None = MISSING
    """Width of the residual stream. null chooses this and the next three settings from the data."""
    layers: int | None = MISSING
    """Number of blocks."""
    heads: int | None = MISSING
    """Number of attention heads per block."""
    context: int | None = 256
    """Maximum length of a sequence in tokens, question and answer together. null chooses it from the data."""
    dropout: float = 0.0
    """Dropout probability, wherever the architecture has dropout."""
    extra: dict[str, Any] = field(default_factory=dict)
    """Further arguments of the transformers config of the architecture, by name."""
    _target_: str | None = None
    """Class of the model, a `PreTrainedModel`. Further keys are arguments of its config. null uses `architecture`."""


@dataclass
class FinetuneConfig:
    """How a pretrained model is trained; from scratch, all parameters are trained."""

    method: FinetuneMethod | None = None
    """`full` trains all parameters, `lora` small matrices next to the frozen linear layers (arXiv:2106.09685), which
    needs the extra `lora`. null takes `full` up to 200 million parameters and `lora` above."""
    average: float | None = 1.0
    """Share of the trained weights in the finished model, whose weights are an average with the pretrained ones
    (WiSE-FT, arXiv:2109.01903). 1 keeps the trained weights; less keeps more of what the pretrained model knew. null
    takes that of 1, 0.8, 0.6 and 0.5 with which most held-out pairs are answered."""
    rank: int = 16
    """LoRA: rank of the matrices."""
    alpha: float = 32.0
    """LoRA: the product of the matrices is multiplied by alpha / rank."""
    dropout: float = 0.0
    """LoRA: dropout probability of the input of the matrices."""
    dora: bool = False
    """LoRA: whether magnitude and direction are trained apart (DoRA, arXiv:2402.09353)."""
    target_modules: Any = "all-linear"
    """LoRA: names of the linear layers to adapt, as a list, or `all-linear` for all but the head."""


@dataclass
class OptimizerConfig:
    """AdamW, or Muon for the hidden matrices and AdamW for the rest, or any optimizer class."""

    kind: OptimizerKind = OptimizerKind.adamw
    """`adamw` or `muon`."""
    lr: float | None = 5e-5
    """Maximum learning rate. null chooses it from the data."""
    betas: tuple[float, float] | None = None
    """AdamW: decay of the running means of the gradient and of its square. null uses 0.9 and 0.999."""
    eps: float | None = None
    """AdamW: term added to the denominator. null uses 1e-8."""
    weight_decay: float | None = None
    """Decoupled weight decay of matrices per step, times the learning rate. null uses 0.01."""
    decay_vectors: bool | None = None
    """AdamW: whether norms and biases decay too, as in torch's default and in the tutorial. null uses false."""
    momentum: float | None = None
    """Muon: decay of the running mean of the gradient. null uses 0.95."""
    schedule: ScheduleKind = ScheduleKind.constant
    """Learning rate after the warm-up: `constant`, `linear`, `cosine` or `wsd` (constant, then a linear last fifth)."""
    schedule_epochs: int | None = None
    """Epochs of the schedule, after which the learning rate stays at its last value. null uses `trainer.max_epochs`."""
    warmup_steps: int = 0
    """Number of first steps in which the learning rate rises linearly."""
    final_lr: float = 0.0
    """Learning rate at the end of the schedule, as a share of `lr`."""
    extra: dict[str, Any] = field(default_factory=dict)
    """Arguments of the class that `_target_` names, by name."""
    _target_: str | None = None
    """Class of the optimizer. Further keys are arguments of the class. null uses the optimizer that `kind` names."""


@dataclass
class EarlyStoppingConfig:
    """Early stopping, before `trainer.max_epochs`."""

    patience: int | None = 5
    """Number of validations in a row without improvement of `monitor` before training stops. null never stops."""


@dataclass
class EvaluationConfig:
    """Recall during training, and the evaluation of the exported model at the end."""

    recall_pairs: int = 512
    """Number of training pairs, sampled once, on which each validation computes `train/recall`. 0 for none."""
    max_pairs: int = 1000
    """Maximum number of pairs of each split that are evaluated at the end. The first pairs are used."""
    batch_size: int = 32
    """Number of questions answered at once."""
    max_new_tokens: int = 64
    """Maximum length of a generated answer, in tokens. It is raised to the length of the longest true answer."""
    mode: AnswerMode | None = AnswerMode.free
    """How the finished model answers unless asked otherwise: `free` writes an answer, `known` takes the known answer
    that the model finds most likely, `nearest` copies the answer of the nearest pair, `best` ranks the known
    answers by several similarities. null takes `best` if pairs share answers, otherwise `free`."""
    encoder: str | None = None
    """Sentence encoder that compares questions in addition to TF-IDF: a folder or a name on the Hugging Face hub, kept
    in model/encoder/, which needs the extra `encoder`; or `model`: a pretrained model encodes questions itself."""


@dataclass
class CheckpointConfig:
    """When `best.ckpt` and `last.ckpt` are written, apart from an interruption and the end of training."""

    every_seconds: float | None = 60.0
    """Maximum seconds of training that a crash can cost. 0 saves after every step, null never saves by time."""
    every_steps: int | None = None
    """Maximum optimizer steps that a crash can cost. null never saves by steps."""
    failed_write: FailedWriteChoice = FailedWriteChoice.stop
    """What to do if a checkpoint cannot be written: `stop` ends the run (exit code 1), `go_on` warns and continues."""


@dataclass
class DistributedConfig:
    """Several processes that train together."""

    timeout_seconds: int = 1800
    """Seconds after which a process that waits for another one ends the run."""


@dataclass
class TrainConfig:
    """The settings of a training run."""

    seed: int = 42
    """Random seed of the weights, dropout and the order of pairs. It is recorded in the run folder."""
    resume: str | None = None
    """Run folder to resume, exactly where it was interrupted. `auto` resumes the run in the folder that `hydra.run.dir`
    names, or starts one there."""
    monitor: str = "val/loss"
    """Metric for early stopping and for the best checkpoint."""
    monitor_mode: Mode = Mode.min
    """Whether smaller (`min`) or larger (`max`) values of `monitor` are better."""
    stop_at_recall: float | None = None
    """Stop when `train/recall` has reached this share in two validations in a row. Contradictory pairs, which cannot
    all be answered, reduce the share."""
    compile: bool | None = None
    """Whether to compile the network with torch.compile. null compiles it if the run is long enough to pay for it."""
    ledger: bool = True
    """Whether to record the loss and exact match of each trained pair in each epoch, for `ledger.parquet`. It takes 5
    bytes of memory per trained pair and epoch."""
    export_weights: Weights = Weights.best
    """Weights to store in `model/` and to evaluate at the end: the best by `monitor`, or the last."""
    loss_weighting: LossWeighting = LossWeighting.pair
    """`pair` averages over pairs the mean token loss of each pair, as in the tutorial. `token` averages over tokens."""
    data: DataConfig = field(default_factory=DataConfig)
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    finetune: FinetuneConfig = field(default_factory=FinetuneConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    early_stopping: EarlyStoppingConfig = field(default_factory=EarlyStoppingConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    distributed: DistributedConfig = field(default_factory=DistributedConfig)
    budget: BudgetConfig = field(default_factory=BudgetConfig)
    loggers: dict[str, Any] = field(default_factory=dict)
    """Loggers of the Trainer: a name of your own to `_target_`, a class, and its arguments. Arguments that only a run
    knows are filled in: the run folder as `save_dir`, the run's name and tags, the id of a resumed run."""
    callbacks: dict[str, Any] = field(default_factory=dict)
    """Your own callbacks of the Trainer: any name, with `_target_` (a class) and its arguments."""
    trainer: dict[str, Any] = field(default_factory=dict)
    """Arguments of `lightning.Trainer`, by name. Arguments that are not supported are refused with a reason."""
    name: str | None = None
    """Name of the run in its report, its loggers and TensorBoard. null uses the name of the run folder."""
    tags: list[str] = field(default_factory=list)
    """Tags of the run, in its report and its loggers."""
    trust: Any = None
    """Package, or list of packages, whose classes `_target_` may name. Allowed on the command line only."""
