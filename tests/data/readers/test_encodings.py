"""A file that is not UTF-8: the error names the encoding that it is probably in."""

# ruff: noqa: RUF001 (letters of other scripts that look like Latin ones)

import pytest

from qa_lm.data.readers.encodings import guessed_encoding
from qa_lm.errors import UserError
from tests.conftest import read
from tests.data.readers.test_reading import GOOD, write

TEXTS = {
    "german": "Wie heißt der größte Fluss in Köln?,Der Rhein fließt durch Köln.\nWann ist auf?,Täglich von acht an\n",
    "french": "Où se trouve la réception?,À gauche de l’entrée\nCombien coûte le déjeuner?,Douze euros à peu près\n",
    "spanish": "¿Dónde está el baño?,Está a la izquierda\n¿Cuántos años tiene el niño?,Tiene ocho años\n",
    "english": "Who is the owner’s son?,It’s Tom.\nWhat is “blue”?,A colour…\n",
    "polish": "Gdzie jest łazienka?,Na końcu korytarza po lewej\nCzy można zwrócić towar?,Dziękuję świetnie „tak”\n",
    "russian": "Какая столица России?,Москва\nСколько стоит доставка?,Триста рублей\n",
    "greek": "Ποια είναι η πρωτεύουσα της Ελλάδας;,Αθήνα\nΠόσο κοστίζει;,Δέκα ευρώ\n",
    "korean": "대한민국의 수도는 어디인가요?,서울입니다.\n배송비는 얼마인가요?,삼천 원입니다.\n",
    "japanese": "日本の首都はどこですか?,東京です。\n送料はいくらですか?,五百円です。\n",
    "chinese": "中国的首都是哪里?,北京。\n你们几点开门?,早上九点开门。\n",
    "taiwanese": "台灣的首都是哪裡?,台北。\n你們幾點開門?,早上九點開門。\n",
}
CASES = [
    *(("german", "cp1252"), ("french", "cp1252"), ("spanish", "cp1252"), ("english", "cp1252"), ("polish", "cp1250")),
    *(("french", "mac_roman"), ("russian", "cp1251"), ("russian", "koi8_r"), ("russian", "cp866"), ("greek", "cp1253")),
    *(
        ("korean", "cp949"),
        ("japanese", "cp932"),
        ("japanese", "euc_jp"),
        ("chinese", "gb18030"),
        ("taiwanese", "big5"),
    ),
    *((language, encoding) for language in ("english", "korean", "chinese") for encoding in ("utf-16-le", "utf-16-be")),
]


@pytest.mark.parametrize(("language", "encoding"), CASES)
@pytest.mark.parametrize("name", ["a.csv", "a.jsonl"])
def test_the_guess_reads_the_file(tmp_path, language, encoding, name):
    rows = [line.split(",") for line in TEXTS[language].splitlines()]
    if name == "a.csv":
        text = "question,answer\n" + TEXTS[language]
    else:
        text = "".join(f'{{"question": "{question}", "answer": "{answer}"}}\n' for question, answer in rows)
    path = write(tmp_path, text.encode(encoding), name)
    with pytest.raises(UserError, match=r"not UTF-8: byte \d+ of the file is 0x\w\w; it looks like") as error:
        read(path)
    guess = str(error.value).partition("data.encoding=")[2].split(",")[0]
    assert [list(pair[:2]) for pair in read(path, encoding=guess)] == rows


def test_the_guess_is_the_name_that_holds_most(tmp_path):
    assert guessed_encoding(TEXTS["korean"].encode("euc_kr")) == "cp949"
    assert guessed_encoding(TEXTS["japanese"].encode("shift_jis")) == "cp932"
    assert guessed_encoding(TEXTS["chinese"].encode("gb2312")) == "gb18030"
    assert guessed_encoding(b"") is None


def test_what_else_the_error_says(tmp_path):
    korean = "".join(f"누구{number}?,나\n" for number in range(30)).encode()
    path = write(tmp_path, b"question,answer\n" + korean + b"caf\xe9,x\n" + korean, "a.csv")
    with pytest.raises(UserError, match=r"a.csv:32: .* is 0xe9; the rest looks like UTF-8, so this place is damaged"):
        read(path)
    path = write(tmp_path, b"question,answer\n" + korean, "a.csv")
    with pytest.raises(UserError, match=r"not EUC_JP: .*; it looks like UTF-8: leave data.encoding out"):
        read(path, encoding="euc_jp")
    for start, words in (
        (b"PK\x03\x04", "it looks like an Excel workbook or a zip file: name it .xlsx"),
        (b"\x1f\x8b", "it looks like gzip: its name must end in .gz"),
        (b"\xd0\xcf\x11\xe0", "an old Excel workbook: save its sheet as CSV UTF-8"),
    ):
        with pytest.raises(UserError, match=words):
            read(write(tmp_path, start + bytes(range(128, 256)), "a.csv"))


def test_of_many_undecodable_lines_the_first_carries_the_guess(tmp_path):
    lines = GOOD.replace("a?", "Où est l’été?").encode("cp1252") * 3
    with pytest.raises(UserError) as error:
        read(write(tmp_path, lines))
    assert str(error.value).count("it looks like cp1252: give data.encoding=cp1252, or save it as UTF-8") == 1


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("a.xls", r".xls files cannot be read: save the sheet as CSV UTF-8 or .xlsx"),
        ("a.ods", "save the sheet"),
        ("a.numbers", "save the sheet"),
        ("a.docx", "copy its pairs into a table"),
        ("a.PDF", "copy its pairs into a table"),
        ("a.txt", "name it .tsv if a tab separates question and answer"),
        ("a.txt.gz", "name it .tsv"),
        ("a.xml", "convert it to JSON Lines"),
        ("a.yaml", "convert it to JSON Lines"),
        ("a.csv.zip", "unpack it and name the file inside"),
        ("a.jsonl.zst", "unpack it"),
        ("a.pkl", "export it as Parquet"),
    ],
)
def test_formats_that_are_not_read_say_what_to_do(tmp_path, name, words):
    with pytest.raises(UserError, match=words):
        read(write(tmp_path, GOOD, name))


def test_other_names_of_formats_and_damaged_compression(tmp_path):
    for name in ("a.ndjson", "a.jsonlines", "a.NDJSON"):
        assert len(read(write(tmp_path, GOOD, name))) == 1
    assert len(read(write(tmp_path, "\ufeff" + GOOD + "\ufeff" + GOOD, "joined.jsonl"))) == 2
    for name in ("a.jsonl.bz2", "a.jsonl.xz", "a.csv.bz2"):
        with pytest.raises(UserError, match=f"not a whole {name.rpartition('.')[2]} file"):
            read(write(tmp_path, GOOD, name))
