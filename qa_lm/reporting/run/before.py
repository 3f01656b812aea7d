"""What a pretrained model knew before training, what it was taught, and what it lost."""

from qa_lm import names
from qa_lm.reporting.run.board import WHOLE_SPLITS, BoardRow, board_rows
from qa_lm.reporting.tables import Cell, Table, plain_rows
from qa_lm.reporting.wording import excerpt, format_int, list_names
from qa_lm.run.board_types import Board, General

COLUMNS = {
    "known_and_kept": "known before,\nright now",
    "known_and_lost": "known before,\nwrong now",
    "taught": "not known before,\nright now",
    "not_learnt": "not known before,\nwrong now",
}


def before_table(rows: list[BoardRow]) -> Table:
    """A row per group of pairs: known and kept, known and lost, taught, not learnt."""
    shown = [
        [
            Cell(row.name, indent=0 if row.name in WHOLE_SPLITS else 2),
            Cell(format_int(row.n)),
            *(Cell(format_int(row.before[column])) for column in COLUMNS),  # type: ignore[literal-required]
        ]
        for row in rows
        if row.before
    ]
    return Table("groups of pairs", ["pairs", "n", *COLUMNS.values()], "lrrrrr", shown)


def general_table(general: General) -> Table:
    """A row per lost general answer."""
    rows = [
        [excerpt(each["question"]), excerpt(each["answer"]), excerpt(each["before"]), excerpt(each["after"])]
        for each in general["worst"]
    ]
    return Table("general questions", ["question", "right answer", "before training", "now"], "llll", plain_rows(rows))


def known_clause(kept: int | None) -> str:
    """A clause after a number of right answers: how many of them were known before; empty if that is unknown."""
    return (
        "" if kept is None else f", of which {format_int(kept)} {'was' if kept == 1 else 'were'} known before training"
    )


def before_lines(board: Board) -> list[str]:
    """The table for the terminal; empty unless the model started from a pretrained one."""
    rows = board_rows(board)
    return ["", *before_table(rows).lines()] if any(row.before for row in rows) else []


def before_sentences(board: Board) -> list[str]:
    """What the model knew before training, and what it lost; empty unless it started from a pretrained one."""
    rows = [row for row in board_rows(board) if row.name in WHOLE_SPLITS]
    known = [_known(row) for row in rows if row.before]
    if not known:
        return []
    lost = sum(row.before["known_and_lost"] for row in rows if row.before)
    total = lost + sum(row.before["known_and_kept"] for row in rows if row.before)
    now = f"; it answers {format_int(lost)} of these {format_int(total)} wrong now" if total else ""
    return [f"Before training the model knew {list_names(known)}{now}.", *_general(board.get("general"))]


def _known(row: BoardRow) -> str:
    assert row.before
    known = row.before["known_and_kept"] + row.before["known_and_lost"]
    split = names.SPLIT_WORDS.get(row.split, row.split)
    return f"{format_int(known)} of {format_int(row.n)} {split} pairs"


def _general(general: General | None) -> list[str]:
    if not general:
        return []
    n = general["n"]
    return [
        f"Of {n} general questions, {round(general['same']['value'] * n)} are answered as before; "
        f"{general['right_before']} were right before training, {general['right_after']} are right now, "
        f"{general['lost']} were lost."
    ]


def lost_lines(board: Board) -> list[str]:
    """The lost general answers for the terminal."""
    general = board.get("general")
    return ["", *general_table(general).lines()] if general and general["worst"] else []
