"""How a run answers with known answers: the modes compared, questions as people write them, unrelated questions."""

from collections.abc import Sequence

from qa_lm import names
from qa_lm.reporting.run.before import known_clause
from qa_lm.reporting.run.board import WHOLE_SPLITS, BoardRow, Share, board_rows
from qa_lm.reporting.tables import Cell, Table, plain_rows
from qa_lm.reporting.wording import format_int, percent, pluralize
from qa_lm.run.board_types import Board, KnownBoard, ModeRow

MODES = {
    "free": "the model writes its answer",
    "known": "the known answer that the model finds most likely",
    "nearest (TF-IDF)": "copies the answer of the nearest pair, by its words",
    "nearest (encoder)": "copies the answer of the nearest pair, by the sentence encoder",
    "best": "ranks the known answers by several similarities",
}
"""Modes, with what they do. Those that only copy are baselines for the model."""
COPIES = ("nearest (TF-IDF)", "nearest (encoder)", "best")
"""Modes that answer without the language model."""
OF_THE_MODEL = ("free", "known")


def modes_table(known: KnownBoard) -> Table:
    """A row per split and mode, with intervals."""
    rows = [
        [
            Cell(names.WHOLE_SPLITS.get(row["split"], row["split"])),
            Cell(row["mode"] + (" (default)" if row["mode"] == known["default_mode"] else "")),
            Cell(MODES.get(row["mode"], "")),
            Cell(format_int(row["n"])),
            Cell((share := Share(**row["exact_match"])).text, share.interval),
        ]
        for row in known["rows"]
    ]
    return Table("modes", ["pairs", "mode", "what it does", "n", "exact match"], "lllrr", rows)


def robustness_table(known: KnownBoard) -> Table:
    """A row per way of writing a trained question."""
    rows = [[row["variant"], format_int(row["n"]), percent(row["exact_match"]["value"])] for row in known["robustness"]]
    return Table("ways of writing", ["trained questions asked", "n", "exact match"], "lrr", plain_rows(rows))


def known_lines(board: Board) -> list[str]:
    """Format the entry `known_answers` of board.json for the terminal; empty if there is none."""
    known = board.get("known_answers")
    if not known:
        return []
    lines = [""]
    if known["rows"]:
        shown = [
            [row[1].text, row[3].text, row[4].both]
            for row in modes_table(known).rows  # what it does is in the report
        ]
        lines += Table("modes", ["mode, held-out pairs", "n", "exact match"], "lrr", plain_rows(shown)).lines()
    if known["robustness"]:
        parts = [f"{row['variant']} {row['exact_match']['value']:.1%}" for row in known["robustness"]]
        lines.append(f"Trained questions, in mode {known['default_mode']}: {', '.join(parts)}.")
    return [*lines, *known_sentences(known, board_rows(board))]


def known_sentences(known: KnownBoard, board: Sequence[BoardRow] = ()) -> list[str]:
    """What the entry says, in sentences: copying or model, answers that stand nowhere, unrelated questions.

    Args:
        known: the entry.
        board: the rows of the results table, which say what was known before training.
    """
    whole = {row.split: row for row in board if row.name in WHOLE_SPLITS}
    sentences = []
    for split in dict.fromkeys(row["split"] for row in known["rows"]):
        sentences += _copying([row for row in known["rows"] if row["split"] == split], whole.get(split))
    for each in known["not_in_file"]:
        if each["split"] != "train" and each["count"]:
            split = names.SPLIT_WORDS.get(each["split"], each["split"])
            sentences.append(
                f"Of the {each['n']:,} answers that the model wrote to {split} questions, {each['count']:,} are not in "
                "the file."
            )
    if unrelated := known["unrelated"]:
        sentences.append(
            f"Of {unrelated['n']:,} unrelated questions, {unrelated['refused']:,} get \N{LEFT DOUBLE QUOTATION MARK}I "
            f"don't know\N{RIGHT DOUBLE QUOTATION MARK} below a probability of {unrelated['threshold']:.2f}."
        )
    return sentences


def _copying(rows: list[ModeRow], whole: BoardRow | None) -> list[str]:
    """Whether the model is better than copying and than before training, on the pairs of one split.

    Args:
        rows: the modes.
        whole: the row of the whole split in the results table, which may have more pairs.
    """
    scores = {row["mode"]: Share(**row["exact_match"]) for row in rows}
    model = max((scores[name] for name in OF_THE_MODEL if name in scores), key=lambda share: share.value)
    copy = max((scores[name] for name in COPIES if name in scores), key=lambda share: share.value)
    if model.clearly_above(copy):
        return [_better_than_copying(f"clearly better than copying ({model.text} and {copy.text})", model, whole)]
    if copy.value > model.value:
        return [f"Copying a known answer is better than what the model finds ({copy.text} and {model.text})."]
    return [f"The model is not clearly better than copying a known answer ({model.text} and {copy.text})."]


def _better_than_copying(clearly: str, model: Share, whole: BoardRow | None) -> str:
    """A pretrained model generalises only if it also answers more than before training."""
    if whole is None or whole.before is None or whole.untrained is None:
        return f"The model generalises: it is {clearly}."
    kept, right = whole.before["known_and_kept"], whole.before["known_and_kept"] + whole.before["taught"]
    known = f"{pluralize(right, 'held-out answer')} {'is' if right == 1 else 'are'} right{known_clause(kept)}"
    if model.clearly_above(whole.untrained):
        return f"The model generalises: it is {clearly}, and than before training ({whole.untrained.text}); {known}."
    return f"The model is {clearly}, but not than before training ({whole.untrained.text}); {known}."
