"""Texts that mean a missing value or a failed formula, as spreadsheets, pandas and databases write them.

They are kept with a warning: "None" may be a true answer, and "#N/A" the answer to a question about spreadsheets.
"""

from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from qa_lm.data.pairs import text_key
from qa_lm.data.storage.arrays import where
from qa_lm.data.table import PairTable

# Of Excel, Google Sheets and LibreOffice; then of Excel in German, French, Spanish, Italian and Portuguese, Polish,
# Russian.
ERRORS = (
    *("#N/A", "#NA", "#N/A N/A", "#REF!", "#NAME?", "#VALUE!", "#DIV/0!", "#NUM!", "#NULL!", "#SPILL!", "#CALC!"),
    *("#FIELD!", "#BLOCKED!", "#CONNECT!", "#UNKNOWN!", "#BUSY!", "#GETTING_DATA", "#EXTERNAL!", "#ERROR!"),
    *(f"Err:{number}" for number in range(501, 541)),
    *("#NV", "#BEZUG!", "#WERT!", "#ZAHL!", "#ÜBERLAUF!", "#VALEUR!", "#NOM?", "#NOMBRE!", "#NUL!", "#PROPAGATION!"),
    *("#¡REF!", "#¡VALOR!", "#¿NOMBRE?", "#¡DIV/0!", "#¡NUM!", "#¡NULO!", "#¡DESBORDAMIENTO!"),
    *("#N/D", "#RIF!", "#VALORE!", "#NOME?", "#VALOR!", "#ADR!", "#ARG!", "#NAZWA?", "#LICZBA!"),
    *("#Н/Д", "#ССЫЛКА!", "#ЗНАЧ!", "#ИМЯ?", "#ДЕЛ/0!", "#ЧИСЛО!", "#ПУСТО!"),  # noqa: RUF001
    *("#" * width for width in range(3, 60)),  # a number in a column that was too narrow
)
MISSING = (
    *("NULL", "Null", "null", "(null)", "[null]", "\\N", "None", "none", "NONE", "nil", "NaN", "nan", "NAN", "-nan"),
    *("<NA>", "NA", "N/A", "n/a", "N/a", "N.A.", "n.a.", "NaT", "1.#QNAN", "-1.#QNAN", "1.#IND", "-1.#IND"),
    *("undefined", "[]", "{}"),
)


def describe_missing(table: PairTable) -> list[str]:
    """Warnings about missing questions and answers, with counts and places; found by their keys."""
    kinds = (
        ("spreadsheet errors", ERRORS, "correct these cells or delete these lines"),
        ("missing values", MISSING, ""),
    )
    found = []
    for side in ("answer", "question"):
        for kind, words, advice in kinds:
            places, seen = _places(table, side, words)
            if len(places):
                shown = ", ".join(seen[:3]) + (", ..." if len(seen) > 3 else "")
                at = ", ".join(table.place(int(place)) for place in places[:3]) + (", ..." if len(places) > 3 else "")
                verb = "are" if kind == "spreadsheet errors" else "look like"
                end = f"; {advice}" if advice else ""
                found.append(f"{side}s that {verb} {kind} ({shown}): {len(places):,}, at {at}{end}")
    return found


def _places(table: PairTable, side: str, words: Iterable[str]) -> tuple[np.ndarray, list[str]]:
    """Indices of the pairs whose question or answer is one of these words, and the words that occur."""
    by_key = {text_key(text): word for word in words for text in (word, f" {word}", f"{word} ")}
    column = table.numbers(f"{side}_key")
    words_keys = pa.array(list(by_key), pa.uint64())

    def is_word(block: slice) -> np.ndarray:
        return pc.is_in(pa.array(column[block]), words_keys).to_numpy(zero_copy_only=False)

    places = where(len(column), is_word)
    return places, list(dict.fromkeys(by_key[int(column[place])] for place in places[:1000]))
