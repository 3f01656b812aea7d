"""What the jobs of a sweep import to train; they are forked from a process that has imported it."""

MODULES = (
    "qa_lm.training.train",
    "qa_lm.training.trainer",
    "qa_lm.reporting.loss_curve",
    "qa_lm.reporting.run.next_steps",
    "qa_lm.reporting.run.report",
    "qa_lm.reporting.run.table",
)
