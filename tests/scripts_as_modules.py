"""What the scripts run, to call their `main` in this process."""

from qa_lm.commands import ask, check_data, evaluate, ledger, train

__all__ = ["ask", "check_data", "evaluate", "ledger", "train"]
