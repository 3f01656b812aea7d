"""Evaluate a model: `python scripts/evaluate.py RUN [data.path=FILE]`; for other models add --template.

Without data.* it asks the run's own pairs, with the split of the run. It writes answers.jsonl and board.json into a
folder, and prints the results table.
"""

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from qa_lm.commands.exit_codes import exit_code
from qa_lm.commands.options import add_abstention, add_mode, add_trust, check_abstention
from qa_lm.config.enums import AnswerMode
from qa_lm.config.targets import import_trusted
from qa_lm.errors import UserError
from qa_lm.names import pairs_by_split
from qa_lm.threads import spin_briefly

if TYPE_CHECKING:
    from qa_lm.evaluation.evaluate import EvalSet, EvaluatedPair
    from qa_lm.inference.answerer import Answerer
    from qa_lm.inference.calibration import Calibration
    from qa_lm.inference.known_answers import KnownAnswers
    from qa_lm.run.board_types import Board

    Evaluated = tuple[list[EvaluatedPair], Calibration | None, dict[str, Any] | None]
    """The answers, the calibration of their probabilities, and the entry `known_answers` of the board."""

SPLITS = ("train", "validation", "test")


def main(arguments: list[str] | None = None) -> int:
    """Evaluate, write and print. Returns the exit code."""
    spin_briefly()
    options = _parser().parse_intermixed_args(arguments)

    def work() -> None:
        _check(options)
        import_trusted(options.trust)
        _evaluate(options)

    return exit_code(work)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Evaluate a model on pairs.")
    parser.add_argument(
        "model", type=Path, metavar="RUN_OR_MODEL", help="a run folder, or the folder of any transformers model"
    )
    parser.add_argument("data", nargs="*", metavar="data.KEY=VALUE", help="settings of the pairs, as for train.py")
    parser.add_argument("--split", choices=[*SPLITS, "all"], help="which of the run's own pairs (default all)")
    parser.add_argument(
        "--template", metavar="TEXT", help="prompt of another model: text with {question} or other columns, or chat"
    )
    parser.add_argument(
        "--max-pairs", type=int, default=100_000, metavar="N", help="maximum pairs of each split (default 100000)"
    )
    parser.add_argument(
        "--max-new-tokens", type=int, default=64, metavar="N", help="maximum tokens of an answer (default 64)"
    )
    parser.add_argument(
        "--batch-size", type=int, default=64, metavar="N", help="questions answered at once (default 64)"
    )
    add_mode(parser)
    add_abstention(parser)
    add_trust(parser)
    parser.add_argument(
        "--out", type=Path, metavar="FOLDER", help="where to write (default evaluation/MODEL in this folder)"
    )
    parser.add_argument("--json", action="store_true", help="print board.json instead of the table")
    return parser


def _check(options: argparse.Namespace) -> None:
    for name in ("max_pairs", "max_new_tokens", "batch_size"):
        if getattr(options, name) < 1:
            raise UserError(f"--{name.replace('_', '-')} must be at least 1")
    check_abstention(options)
    if options.data and options.split:
        raise UserError("--split is of the run's own pairs: leave out data.*")


def _evaluate(options: argparse.Namespace) -> None:
    # Imported late, so that invalid options are reported at once.
    import transformers

    from qa_lm.evaluation.board import board
    from qa_lm.evaluation.calibrate import evaluated_board_entry
    from qa_lm.inference.external import is_external
    from qa_lm.inference.in_progress import is_in_progress
    from qa_lm.reporting.run.table import board_lines
    from qa_lm.run.atomic import write_json, write_jsonl
    from qa_lm.run.run_folder import ANSWERS, BOARD

    transformers.utils.logging.disable_progress_bar()
    foreign = not is_in_progress(options.model) and is_external(options.model)
    if foreign and options.template is None:
        raise UserError(
            f"{options.model}: was not written by qa_lm; give its prompt: --template chat, or "
            "--template 'Q: {question}\\nA:'"
        )
    if options.template is not None and not foreign:
        raise UserError("--template is for other models: this model was saved with its prompt")
    if foreign and options.mode not in (None, "free"):
        raise UserError(f"--mode {options.mode}: {options.model} was not written by qa_lm, so it has no known answers")
    answers, calibration, known = _foreign(options) if foreign else _ours(options)
    threshold = _threshold(options, calibration)
    found = board(answers, evaluated_board_entry(calibration, answers, threshold), known)
    records = [each.record() for each in answers]
    if threshold is not None:
        records = [record | {"abstained": record["probability"] < threshold} for record in records]
    folder: Path = options.out or Path("evaluation") / options.model.resolve().name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_jsonl(folder / ANSWERS, records)
        write_json(folder / BOARD, found)
    except OSError as error:
        raise UserError(f"{folder}: cannot be written: {error.strerror}") from None
    if options.json:
        print(json.dumps(found, ensure_ascii=False, indent=2))
    else:
        print("\n".join([*board_lines(cast("Board", found)), *_abstaining(found), "", str(folder)]))


def _ours(options: argparse.Namespace) -> "Evaluated":
    from qa_lm.config.compose import data_config
    from qa_lm.data.encoding import encode_pairs
    from qa_lm.evaluation.assess import eval_sets, trained_pairs
    from qa_lm.evaluation.before.known_before import KnownBefore
    from qa_lm.evaluation.eval_pairs import data_of_run, pairs_of_files
    from qa_lm.evaluation.evaluate import EvalSet, evaluate_pairs
    from qa_lm.evaluation.explanation import read_trained_pairs
    from qa_lm.inference.in_progress import load_answerer
    from qa_lm.modeling.causal_lm import context_of

    answerer = load_answerer(options.model)
    mode = AnswerMode(options.mode) if options.mode else answerer.default_mode
    answerer.prepare(mode)
    if options.data:
        data = data_config(options.data)
        for name, own in (("prompt", answerer.template.prompt), ("completion", answerer.template.answer)):
            given = getattr(data, name).replace("\\n", "\n")
            if any(each.startswith(f"data.{name}=") for each in options.data) and given != own:
                raise UserError(f"data.{name}: this model was saved with {own!r}; leave it out")
        pairs = pairs_of_files(data, options.max_pairs, answerer.template)
        everything = [EvalSet("given", pairs, encode_pairs(pairs, answerer.tokenizer, answerer.template))]
        trained = read_trained_pairs(options.model)
    else:
        prepared = data_of_run(options.model)
        splits = SPLITS if options.split in (None, "all") else (options.split,)
        before = KnownBefore.load(options.model, prepared)
        everything = [asked for asked in eval_sets(prepared, splits, options.max_pairs, before) if asked.pairs]
        if not everything:
            raise UserError(f"--split {options.split}: this run has no such pairs")
        trained = trained_pairs(prepared)
    answers: list[EvaluatedPair] = []
    everything = [_fitting(asked, context_of(answerer.model)) for asked in everything]
    for asked in everything:
        relations = trained.overlaps(asked.pairs) if trained and asked.split != "train" else None
        answers += evaluate_pairs(
            answerer.model,
            answerer.tokenizer,
            answerer.template,
            asked,
            relations,
            options.batch_size,
            options.max_new_tokens,
        )
    return _in_mode(answerer, mode, everything, answers)


def _in_mode(
    answerer: "Answerer", mode: AnswerMode, sets: "list[EvalSet]", answers: "list[EvaluatedPair]"
) -> "Evaluated":
    """The answers in a mode, its calibration, and the entry `known_answers` of the board."""
    from qa_lm.evaluation.known import answerers, in_mode, known_board

    calibration, known, entry = answerer.calibration_of(mode), answerer.known, None
    if known and _compares(known, mode):
        ways = answerers(known, answerer.model, answerer.tokenizer, answerer.template)
        entry = known_board(known, ways, sets, answers)
    if mode is not AnswerMode.free:
        pairs = [pair for each in sets for pair in each.pairs]
        given = answerer.answer([pair.question for pair in pairs], 1, mode=mode)
        answers = [in_mode(*each) for each in zip(answers, pairs, given, strict=True)]
    elif calibration:
        answers = [replace(each, probability=calibration.probability(each.log_probability)) for each in answers]
    return answers, calibration, entry


def _compares(known: "KnownAnswers", mode: AnswerMode) -> bool:
    """Whether the modes are compared."""
    from qa_lm.retrieval.encoder import SentenceEncoder, is_installed

    if AnswerMode.free in (mode, known.default_mode):
        return False
    needed = isinstance(known.encoder, SentenceEncoder)
    if mode is AnswerMode.known and needed and not is_installed():  # the mode itself needs no encoder
        print("note: the modes are not compared: sentence-transformers is not installed", file=sys.stderr)
        return False
    return True


def _foreign(options: argparse.Namespace) -> "Evaluated":
    from qa_lm.config.compose import data_config
    from qa_lm.evaluation.eval_pairs import pairs_of_files
    from qa_lm.evaluation.evaluate import EvalSet, evaluate_pairs
    from qa_lm.inference.external import ExternalModel
    from qa_lm.modeling.causal_lm import context_of

    if not options.data:
        raise UserError("name the pairs: data.path=FILE")
    data = data_config(options.data)
    model = ExternalModel.load(options.model, options.template, data.prompt)
    pairs = pairs_of_files(data, options.max_pairs, model.answerer.template)
    asked = _fitting(EvalSet("given", pairs, model.examples(pairs)), context_of(model.answerer.model))
    answers = evaluate_pairs(
        model.answerer.model,
        model.answerer.tokenizer,
        model.answerer.template,
        asked,
        None,
        options.batch_size,
        options.max_new_tokens,
        model.use_drafts,
        by_text=True,
    )
    return answers, None, None


def _fitting(asked: Any, context: int) -> Any:
    """Return the pairs.

    Raises:
        UserError: a pair is longer than the model's context.
    """
    for number, example in enumerate(asked.examples, start=1):
        if len(example.ids) > context:
            raise UserError(
                f"pair {number} ({asked.pairs[number - 1].question[:60]!r}) has {len(example.ids)} tokens; the "
                f"context of this model is {context}"
            )
    return asked


def _threshold(options: argparse.Namespace, calibration: "Calibration | None") -> float | None:
    if options.abstain_below is None and options.precision is None:
        return None
    if calibration is None:
        raise UserError(f"{options.model}: has no calibration, so probabilities are unknown")
    return options.abstain_below if options.precision is None else calibration.threshold_for(options.precision)


def _abstaining(found: dict[str, Any]) -> list[str]:
    abstaining = (found["confidence"] or {}).get("abstaining")
    if not abstaining:
        return []
    asked = abstaining["asked"]
    answered = round(abstaining["coverage"] * sum(asked.values()))
    right = "" if abstaining["precision"] is None else f", and {abstaining['precision']:.1%} of these answers are right"
    return [
        f'Saying "I don\'t know" below a probability of {abstaining["threshold"]:.3f}, it answers {answered:,} of '
        f"{pairs_by_split(asked)} ({abstaining['coverage']:.1%}){right}.",
        f"Its probabilities are calibrated on {pairs_by_split(found['confidence']['fitted_on'])}.",
    ]
