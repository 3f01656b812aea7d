"""Damaged files: pairs or one clear error with its place, never anything else."""

import csv
import gzip
import io
import json
import random
import re
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest

from qa_lm.errors import UserError
from tests.conftest import read

FORMATS = ("jsonl", "json", "csv", "tsv", "parquet", "csv")
PIECES = (
    *(b"\x00", b"\xff\xfe", b"\xef\xbb\xbf", b"\xe2\x80\xa8", b"\xc2\x85", b"\xed\xa0\x80", b"\r", b"\r\n", b"\n\n"),
    *(b'"', b"'", b",", b"\t", b"{", b"}", b"[" * 3000, b"]", b":", b"\\", b"\\ud800", b"null", b"NaN", b"1e999"),
    *(b"9" * 5000, b"A" * 100_000, b'{"a":' * 3000, "누구".encode("cp949"), "é".encode("cp1252"), b"\x1f\x8b", b"PAR1"),
    *(
        b"\nquestion,answer\n",
        b"\n\xef\xbb\xbfquestion\tanswer\r\n",
        b"\n,,,\n",
        b'"x\n',
        b'\n"x" y,z\n',
        b"['a' 'b']",
        b"#N/A",
    ),
)
ABOVE = ("", "", "", "\ufeff", "sep=;\n", "sep=\t\n", "Title\n\n", ",,\n,\n", "a,b\n", '"')
PLACE = re.compile(r"^.*damaged[^:]*:\d+: .+|^.*damaged\S*: \S.+|^\d[\d,]* bad lines", re.DOTALL)


def whole_file(kind: str, dice: random.Random) -> bytes:
    """A sound file of a few records, some of odd types."""
    odd = [
        None,
        3,
        2.5,
        True,
        [],
        ["b", "c"],
        ["b", 1],
        {"text": ["b"]},
        {},
        "",
        " ",
        "x" * dice.randrange(300),
        "\u2028",
    ]
    records = [
        {"question": f"q{dice.randrange(9)}?", "answer": dice.choice(odd) if dice.random() < 0.04 else f"a{number}"}
        for number in range(dice.randrange(1, 8))
    ]
    if kind == "jsonl":
        return "".join(json.dumps(record) + "\n" for record in records).encode()
    if kind == "json":
        squad = {
            "data": [
                {"paragraphs": [{"qas": [{"question": "q", "answers": [{"text": r["answer"]}]} for r in records]}]}
            ]
        }
        return json.dumps(dice.choice([records, squad, {"data": records}]), indent=dice.choice([None, 1])).encode()
    if kind == "parquet":
        answers = [str(record["answer"]) for record in records]
        table = pa.table(
            {"question": [r["question"] for r in records], "answer": dice.choice([answers, [[a] for a in answers]])}
        )
        buffer = io.BytesIO()
        pa.parquet.write_table(table, buffer, compression=dice.choice(["snappy", "none", "zstd"]))
        return buffer.getvalue()
    text = io.StringIO()
    writer = csv.writer(text, delimiter=dice.choice([*(",\t"[kind == "tsv"] * 3), *",;\t|"]))
    writer.writerows([["question", "answer"], *([r["question"], str(r["answer"])] for r in records)])
    return (dice.choice(ABOVE) + text.getvalue()).encode()


def cut(content: bytes, dice: random.Random) -> bytes:
    return content[: dice.randrange(len(content) + 1)]


def flip(content: bytes, dice: random.Random) -> bytes:
    damaged = bytearray(content)
    for _ in range(dice.randrange(1, 6)):
        if damaged:
            damaged[dice.randrange(len(damaged))] = dice.randrange(256)
    return bytes(damaged)


def insert(content: bytes, dice: random.Random) -> bytes:
    at = dice.randrange(len(content) + 1)
    return content[:at] + dice.choice(PIECES) * dice.randrange(1, 3) + content[at:]


def noise(content: bytes, dice: random.Random) -> bytes:
    return dice.randbytes(dice.randrange(200))


def twice(content: bytes, dice: random.Random) -> bytes:
    return content + content


def recoded(content: bytes, dice: random.Random) -> bytes:
    text = content.decode("latin-1").replace("q", "é누")
    return text.encode(dice.choice(["utf-8", "utf-16", "utf-16-le", "utf-32", "cp1252", "cp949"]), "replace")


DAMAGES: tuple[Callable[[bytes, random.Random], bytes], ...] = (cut, flip, flip, insert, insert, noise, twice, recoded)


def outcomes(folder: Path, cases: range) -> dict[str, int]:
    """What became of the cases; anything but pairs or a placed error raises, with the case's number."""
    counts = {"pairs": 0, "error": 0}
    for case in cases:
        dice = random.Random(case)
        kind = FORMATS[case % len(FORMATS)]
        content = whole_file(kind, dice)
        for _ in range(dice.randrange(1, 3)):
            content = dice.choice(DAMAGES)(content, dice)
        name = f"damaged.{kind}"
        if dice.random() < 0.2:
            name, content = f"{name}.gz", gzip.compress(content, mtime=0)
            if dice.random() < 0.5:
                content = dice.choice((cut, flip))(content, dice)
        path = folder / name
        path.write_bytes(content)
        pairs, message = [], None
        try:
            pairs = read(path, encoding=dice.choice(["utf-8"] * 20 + ["utf-16", "cp949"]))
        except UserError as error:
            message = str(error)
        except BaseException as error:
            raise AssertionError(f"case {case}, {path}: {type(error).__name__}: {error}") from error
        if message is not None:
            assert PLACE.match(message), (case, message)
            assert len(message.splitlines()) <= 21, (case, message)
            assert len(message) < 8000, (case, message[:500])
        for pair in pairs:
            assert pair.question.strip(), case
            assert pair.answer.strip(), case
            f"{pair}".encode()
        counts["pairs" if message is None else "error"] += 1
    return counts


def test_damaged_files_give_pairs_or_one_clear_error(tmp_path):
    counts = outcomes(tmp_path, range(2000))
    assert min(counts.values()) > 200, counts  # both ends are really tried


@pytest.mark.slow
@pytest.mark.parametrize("part", range(4))
def test_many_damaged_files(tmp_path, part):
    counts = outcomes(tmp_path, range(10_000 + part * 12_500, 10_000 + (part + 1) * 12_500))
    assert min(counts.values()) > 1000, counts
