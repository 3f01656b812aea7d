"""Check files of pairs without training: `python scripts/check_data.py FILE... [--strict] [--output report.json]`.

Prints a summary of the pairs and all problems. Bad lines are left out of the summary. The exit code is 0 if the files
can be trained on, 2 if not; with --strict, warnings are errors.
"""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from qa_lm.commands.exit_codes import exit_code
from qa_lm.commands.options import add_trust
from qa_lm.config.enums import BadLines, PromptKind
from qa_lm.config.schema import DataConfig, TokenizerConfig
from qa_lm.config.targets import import_trusted
from qa_lm.data.readers.problems import Problems
from qa_lm.data.splits.registry import check_split
from qa_lm.errors import UserError, as_options, sanitize

if TYPE_CHECKING:
    from qa_lm.data.quality.checks import DataReport

COLUMNS = {
    "question": "column of the question (default: recognised)",
    "answer": "column of the answer (default: recognised)",
    "group": "column that identifies the fact of paraphrased pairs (default: recognised), or 'answer'",
}
OPTIONS = {
    **{
        f"data.{name}": f"--{name}"
        for name in (*COLUMNS, "columns", "encoding", "prompt", "completion", "template", "system", "split", "cache")
    },
    **{"data.unanswerable": "--unanswerable", "data.split_seed": "--seed", "data.path": ""},
    **{"data.validation_path": "--validation", "data.test_path": "--test"},
}
"""Setting in a message to the option of this command."""


def main(arguments: list[str] | None = None) -> int:
    """Check and print. Returns the exit code."""
    options = _parser().parse_args(arguments)
    return exit_code(lambda: _check(options), OPTIONS)


def _check(options: argparse.Namespace) -> None:
    report = _report(options)
    _show(report)
    if options.output:
        _write(options.output, report)
    if count := report.bad_lines["count"]:
        raise Problems(count, report.bad_lines["listed"]).error()
    if options.strict and report.warnings:
        raise UserError(f"--strict: warnings above: {len(report.warnings)}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Check files of question-answer pairs.")
    parser.add_argument("files", nargs="+", metavar="FILE", help="files or globs, as for data.path")
    parser.add_argument("--validation", nargs="+", metavar="FILE", help="files of held-out pairs, to find leaks")
    parser.add_argument("--test", nargs="+", metavar="FILE", help="files of test pairs, to find leaks")
    for column, meaning in COLUMNS.items():
        parser.add_argument(f"--{column}", metavar="COLUMN", help=meaning)
    parser.add_argument("--prompt", metavar="TEMPLATE", help='as for data.prompt: "{context}\\n{question}"')
    parser.add_argument("--completion", metavar="TEMPLATE", help="as for data.completion")
    parser.add_argument(
        "--template",
        choices=[kind.value for kind in PromptKind],
        default="plain",
        help="as for data.template; chat needs --tokenizer",
    )
    parser.add_argument("--system", metavar="TEXT", help="as for data.system")
    parser.add_argument(
        "--unanswerable", metavar="TEXT", help="answer to train for questions without one; skip leaves them out"
    )
    parser.add_argument("--columns", nargs="+", metavar="COLUMN", help="columns of a CSV or TSV without a header line")
    parser.add_argument("--encoding", default="utf-8", help="encoding of text files (default utf-8)")
    parser.add_argument("--split", metavar="NAME", default="question", help="as for data.split (default question)")
    add_trust(parser)
    parser.add_argument("--seed", type=int, default=42, help="seed of the split (default 42)")
    parser.add_argument("--tokenizer", metavar="FOLDER", help="folder of a tokenizer (default: GPT-2's)")
    parser.add_argument(
        "--max-tokens", type=int, default=256, metavar="N", help="maximum tokens of a pair (default 256)"
    )
    parser.add_argument(
        "--cache", metavar="FOLDER", help="folder for prepared data, or off (default: the user's cache folder)"
    )
    parser.add_argument("--strict", action="store_true", help="warnings are errors")
    parser.add_argument("--output", type=Path, metavar="FILE", help="also write the whole report to this file, as JSON")
    return parser


def _report(options: argparse.Namespace) -> "DataReport":
    # Imported late, so that invalid options are reported at once.
    from qa_lm.data.prepare import prepare

    if options.max_tokens < 2:
        raise UserError("--max-tokens must be at least 2")
    if options.unanswerable is not None and not options.unanswerable.strip():
        raise UserError("--unanswerable must not be empty")
    if not 0 <= options.seed < 2**32:
        raise UserError("--seed must be from 0 to 4294967295")
    if options.template == "chat" and options.tokenizer is None:
        raise UserError("--template chat: needs the folder of a model with a chat template as --tokenizer")
    if options.system is not None and options.template != "chat":
        raise UserError("--system needs --template chat")
    import_trusted(options.trust)
    check_split(options.split)
    data = DataConfig(
        path=options.files,
        validation_path=options.validation,
        test_path=options.test,
        question=options.question,
        answer=options.answer,
        group=options.group,
        columns=options.columns,
        encoding=options.encoding,
        template=PromptKind(options.template),
        system=options.system,
        unanswerable=options.unanswerable,
        bad_lines=BadLines.skip,  # the rest is reported too; then bad lines are the error
        split=options.split,
        split_seed=options.seed,
        cache=options.cache,
    )
    if options.prompt is not None:
        data.prompt = options.prompt
    if options.completion is not None:
        data.completion = options.completion
    tokenizer = TokenizerConfig("folder", options.tokenizer) if options.tokenizer else TokenizerConfig("gpt2")
    return prepare(data, tokenizer, options.max_tokens, check_only=True).report


def _show(report: "DataReport") -> None:
    from qa_lm.data.quality.checks import summary

    for name, columns in report.sources.items():
        print(sanitize(f"{name}: {columns}"))
    print("   ".join(f"{name} {count:,}" for name, count in report.counts.items()))
    shown = ("p0", "p50", "p95", "p100")
    print(f"{'':<22}{'least':>8}{'median':>8}{'95%':>8}{'most':>8}")
    for name, found in report.lengths.items():
        print(f"{name.replace('_', ' '):<22}" + "".join(f"{found[each]:>8,}" for each in shown))
    best = report.contradictions
    print(
        f"best possible: recall {best['best_recall']:.2%}, loss {best['best_loss']:.4f} nats per token "
        f"({best['best_answer_loss']:.4f} on answers alone)"
    )
    print(as_options(sanitize("\n".join(summary(report))), OPTIONS))


def _write(path: Path, report: "DataReport") -> None:
    try:
        path.write_text(json.dumps(report.as_dict(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror}") from None
