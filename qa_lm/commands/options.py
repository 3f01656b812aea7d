"""Options that several commands share."""

import argparse

from qa_lm.config.enums import AnswerMode
from qa_lm.config.targets import TRUST_HELP
from qa_lm.errors import UserError


def add_trust(parser: argparse.ArgumentParser) -> None:
    """Add the option `--trust`."""
    parser.add_argument("--trust", action="append", metavar="PACKAGE", help=TRUST_HELP)


def add_mode(parser: argparse.ArgumentParser) -> None:
    """Add the option `--mode`."""
    parser.add_argument(
        "--mode",
        choices=[mode.value for mode in AnswerMode],
        help="how to answer: free writes an answer, known takes the known answer that the model finds most likely, "
        "nearest copies the answer of the nearest trained pair, best ranks the known answers (default: what the "
        "run chose)",
    )


def add_abstention(parser: argparse.ArgumentParser) -> None:
    """Add the options for answering "I don't know"."""
    parser.add_argument(
        "--abstain-below", type=float, metavar="P", help='answer "I don\'t know" below this probability'
    )
    parser.add_argument(
        "--precision",
        type=float,
        metavar="P",
        help='answer "I don\'t know" below the probability above which a share P of the answers to held-out questions '
        "was right",
    )


def check_abstention(options: argparse.Namespace) -> None:
    """Refuse probabilities that are out of range, and both options at once.

    Raises:
        UserError: names the option.
    """
    for name, value in (("--abstain-below", options.abstain_below), ("--precision", options.precision)):
        if value is not None and not 0 <= value <= 1:
            raise UserError(f"{name} must be from 0 to 1")
    if options.abstain_below is not None and options.precision is not None:
        raise UserError("give --abstain-below or --precision, not both")
