"""Which keys lie next to each other."""

_ROWS = {
    "qwerty": ("qwertyuiop", "asdfghjkl", "zxcvbnm"),
    "qwertz": ("qwertzuiopü", "asdfghjklöä", "yxcvbnm"),
    "azerty": ("azertyuiop", "qsdfghjklm", "wxcvbn"),
    "jcuken": ("йцукенгшщзхъ", "фывапролджэ", "ячсмитьбю"),
    "dubeolsik": ("ㅂㅈㄷㄱㅅㅛㅕㅑㅐㅔ", "ㅁㄴㅇㄹㅎㅗㅓㅏㅣ", "ㅋㅌㅊㅍㅠㅜㅡ"),
}


def _neighbours(rows: tuple[str, ...]) -> dict[str, str]:
    """Each row is half a key to the right of the row above: a key touches two keys above it and two below it."""
    places = {(row, column): key for row, keys in enumerate(rows) for column, key in enumerate(keys)}
    around = ((0, -1), (0, 1), (1, -1), (1, 0), (-1, 0), (-1, 1))
    return {
        key: "".join(places.get((row + down, column + right), "") for down, right in around)
        for (row, column), key in places.items()
    }


NEIGHBOURS = {name: _neighbours(rows) for name, rows in _ROWS.items()}
"""Keyboard layout to key to the keys around it."""
