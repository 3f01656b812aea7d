"""Ask a trained model: `python scripts/ask.py RUN_FOLDER "What is 2 + 2?"`; without a question, it opens a prompt.

It reads only the run's model/ folder, or the best checkpoint while the run trains. Only answers go to standard output.
"""

import argparse
import gc
import json
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from qa_lm.commands.exit_codes import exit_code, notice
from qa_lm.commands.options import add_abstention, add_mode, add_trust, check_abstention
from qa_lm.config.enums import AnswerMode
from qa_lm.config.targets import import_trusted
from qa_lm.errors import UserError, sanitize
from qa_lm.quick_start import light_transformers, without_garbage_collection
from qa_lm.threads import spin_briefly

if TYPE_CHECKING:
    from collections.abc import Callable

    from qa_lm.evaluation.explanation import Explainer, Explanation
    from qa_lm.evaluation.replies import Replies
    from qa_lm.inference.answerer import Answer, Answerer
    from qa_lm.inference.sampling import Sampling

OPTIONS = {"data.question": "--column", "data.encoding": "--encoding"}
"""Setting in a message to the option of this command."""


def main(arguments: list[str] | None = None) -> int:
    """Answer and print. Returns the exit code."""
    spin_briefly()
    options = _parser().parse_intermixed_args(arguments)

    def work() -> None:
        _check(options)
        with without_garbage_collection():
            with notice(f"loading {options.run} ..."):
                import_trusted(options.trust)
                questions = _questions(options)
                answerer = _answerer(options)
            show = _shower(options, answerer)
        gc.freeze()  # what was imported stays, so neither a collection nor the exit looks through it
        _ask(options, answerer, questions, show)

    return exit_code(work, OPTIONS)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Ask a trained model.", epilog="Without a question, it opens a prompt; Ctrl-D quits."
    )
    parser.add_argument(
        "run", type=Path, metavar="RUN_FOLDER", help="the folder that train.py printed last, or its model/ folder"
    )
    parser.add_argument("question", nargs="*", help="the question; several words are joined by spaces")
    parser.add_argument(
        "--file",
        type=Path,
        metavar="QUESTIONS",
        help="a text file with a question per line, or a table (.csv, .tsv, .jsonl, .json, .parquet, also .gz) with a "
        "column of questions; answers are printed in the order of the file",
    )
    parser.add_argument("--column", metavar="NAME", help="column of the question in --file (default: recognised)")
    parser.add_argument("--encoding", default="utf-8", help="encoding of --file (default utf-8)")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=TEXT",
        help="text of another column of the prompt, such as context=...; can be repeated",
    )
    parser.add_argument(
        "--json",
        action="store_true",
        help="print each answer as a line of JSON: question, answer, stopped, tokens, log_probability, probability",
    )
    parser.add_argument(
        "--max-new-tokens", type=int, default=64, metavar="N", help="maximum tokens of an answer (default 64)"
    )
    parser.add_argument(
        "--temperature",
        type=float,
        default=0.0,
        metavar="T",
        help="0 is greedy (default); 1 samples from the model's distribution",
    )
    parser.add_argument(
        "--top-k", type=int, default=0, metavar="K", help="sample from the K most likely tokens; 0 for all (default)"
    )
    parser.add_argument(
        "--top-p",
        type=float,
        default=1.0,
        metavar="P",
        help="sample from the most likely tokens that sum to P (default 1)",
    )
    add_abstention(parser)
    add_mode(parser)
    parser.add_argument("--explain", action="store_true", help="show the confidence and the nearest trained questions")
    add_trust(parser)
    parser.add_argument("--seed", type=int, default=0, help="seed of the samples (default 0)")
    return parser


def _check(options: argparse.Namespace) -> None:
    rules = {
        "--max-new-tokens must be at least 1": options.max_new_tokens >= 1,
        "--temperature must be 0 or more, and finite": 0 <= options.temperature < float("inf"),
        "--top-k must be 0 or more": options.top_k >= 0,
        "--top-p must be above 0 and at most 1": 0 < options.top_p <= 1,
        "--seed must be 0 or more": options.seed >= 0,
        "--top-k and --top-p need --temperature above 0": options.temperature > 0
        or (options.top_k == 0 and options.top_p == 1),
        "--temperature needs --mode free": options.temperature == 0 or options.mode in (None, "free"),
        "give a question or --file, not both": not (options.question and options.file),
    }
    for rule, holds in rules.items():
        if not holds:
            raise UserError(rule)
    check_abstention(options)


def _questions(options: argparse.Namespace) -> list[str]:
    """Return the given questions, in the form of the model's prompt. An empty list means that a prompt is opened."""
    from qa_lm.data.questions import question_of, template_of
    from qa_lm.templates import placeholders

    template, texts = template_of(options.run), _texts(options)
    if options.file is not None:
        from qa_lm.data.question_files import questions_in  # imports pyarrow

        return questions_in(options.file, template, texts, options.column, options.encoding)
    if options.question:
        return [question_of(template, texts | {"question": " ".join(options.question)})]
    if set(placeholders(template.question_parts)) <= set(texts):
        return [question_of(template, texts)]
    question_of(template, {"question": "", **texts})  # reports a missing column before the first question
    return []


def _texts(options: argparse.Namespace) -> dict[str, str]:
    """Return the texts of `--set` by column."""
    for each in options.set:
        if "=" not in each:
            raise UserError(f"--set {each}: write NAME=TEXT")
    return dict(each.split("=", 1) for each in options.set)


def _answerer(options: argparse.Namespace) -> "Answerer":
    with nullcontext() if options.trust else light_transformers():  # code of the user's own may need all of it
        import transformers

        from qa_lm.inference.in_progress import load_answerer

        transformers.utils.logging.disable_progress_bar()
        answerer = load_answerer(options.run)
        answerer.prepare(_mode(options) or answerer.default_mode)
        return answerer


def _mode(options: argparse.Namespace) -> AnswerMode | None:
    """The mode that the options choose: samples are written freely. None for the model's default."""
    if options.temperature > 0:
        return AnswerMode.free
    return AnswerMode(options.mode) if options.mode else None


def _ask(
    options: argparse.Namespace, answerer: "Answerer", questions: list[str], show: "Callable[[Answer], None]"
) -> None:
    from qa_lm.inference.sampling import Sampling

    sampling = Sampling(options.temperature, options.top_k, options.top_p, options.seed)
    mode = _mode(options)
    if questions:
        for answer in answerer.answer(questions, options.max_new_tokens, sampling, mode):
            show(answer)
    else:
        _talk(answerer, options, sampling, mode, show)


def _talk(
    answerer: "Answerer",
    options: argparse.Namespace,
    sampling: "Sampling",
    mode: AnswerMode | None,
    show: "Callable[[Answer], None]",
) -> None:
    from qa_lm.data.questions import question_of

    if sys.stdin.isatty():
        import readline  # noqa: F401  # adds editing and a history to input()

        print("Ask a question; Ctrl-D quits.", file=sys.stderr)
    while True:
        try:
            question = input("> " if sys.stdin.isatty() else "")
        except EOFError:
            if sys.stdin.isatty():
                print(file=sys.stderr)
            return
        if not question.strip():
            continue
        try:
            filled = question_of(answerer.template, _texts(options) | {"question": question})
            (answer,) = answerer.answer([filled], options.max_new_tokens, sampling, mode)
        except UserError as error:
            print(error, file=sys.stderr)
            continue
        show(answer)


def _shower(options: argparse.Namespace, answerer: "Answerer") -> "Callable[[Answer], None]":
    """Return the function that prints an answer in the form that the options choose.

    Raises:
        UserError: the model's folder lacks a file that an option needs.
    """
    replies = _replies(options, answerer)

    def show(answer: "Answer") -> None:
        (reply,) = replies.of([answer], AnswerMode(answer.mode))
        if options.json:
            print(json.dumps(reply.record, ensure_ascii=False), flush=True)
            return
        # Some control characters would change the terminal; a file gets the answer unchanged.
        print(sanitize(reply.said) if sys.stdout.isatty() else reply.said, flush=True)
        if reply.explanation:
            print(sanitize("\n".join(_in_words(answer, reply.explanation))), flush=True)

    return show


def _replies(options: argparse.Namespace, answerer: "Answerer") -> "Replies":
    from qa_lm.evaluation.replies import Abstention, Replies

    mode = _mode(options) or answerer.default_mode
    abstention = Abstention.of(options.run, answerer, mode, options.abstain_below, options.precision)
    if abstention:
        print(f"note: {abstention.note}", file=sys.stderr)
    return Replies(abstention, _explainer(options, answerer))


def _explainer(options: argparse.Namespace, answerer: "Answerer") -> "Explainer | None":
    if not options.explain:
        return None
    from qa_lm.evaluation.explanation import explainer_of  # imports pyarrow and scipy
    from qa_lm.run.run_folder import LEDGER

    explainer = explainer_of(options.run, answerer.known)
    if explainer is None:
        raise UserError(
            f"--explain: {options.run}: holds no {LEDGER}; give the folder of a finished run with ledger=true"
        )
    return explainer


def _in_words(answer: "Answer", explanation: "Explanation") -> list[str]:
    sure = "" if answer.probability is None else f"right with probability {answer.probability:.1%}"
    likelihood = (
        "" if answer.log_probability is None else f"mean log-probability of a token {answer.log_probability:.3f}"
    )
    source = {None: "", True: "stands in the file", False: "not in the file"}[answer.in_file]
    return [
        "  " + "; ".join(each for each in (sure, likelihood, source) if each),
        f"  this question: {explanation.question_is}; the nearest trained ones:",
        *(f"  {each.similarity:.2f}  {each.question}  ->  {each.answer}" for each in explanation.nearest),
    ]
