"""The language of a question: by its script, and for Latin and Cyrillic letters by frequent words."""

# ruff: noqa: RUF001 (letters and marks of other scripts)

import re

_FREQUENT = {
    "en": """what who whom whose which when where why how the is are does did was were can could would should has have
        you your my many much it this that there with from and of for i'm don't need want""",
    "de": """was wer wo wann warum wie welche welcher welches wieso der die das den dem des ein eine einen ist sind war
        liegt heißt hat haben kann ich wird werden viele für von mit und nicht zu auf gibt es mein meine kostet""",
    "fr": """qui quoi quand où pourquoi comment combien quel quelle quels quelles est sont le la les un une des du de
        dans est-ce que qu'est-ce je vous il elle se trouve et pour avec ne pas mon ma à sur au""",
    "es": """qué quién quiénes cuándo dónde cómo cuál cuáles cuánto cuánta cuántos cuántas el la los las un una es son
        está están del de en por para con y mi se fue tiene puedo hay que""",
    "it": """chi che cosa quando dove perché quale quali quanto quanti quanta quante il lo la gli le un una è sono di
        del della dell' nel per con e si trova mio posso ha come cos'è dov'è qual""",
    "pt": """quem qual quais quando onde como quanto quantos quantas os um uma é são está da dos das de em
        não meu minha posso para por que fica tem com e foi""",
    "nl": """wie wat wanneer waar waarom hoe welke welk de het een is zijn was van op voor met en niet ik mijn kan veel
        ligt heet heeft in naar je""",
}
_LANGUAGES: dict[str, list[str]] = {}
for _name, _words in _FREQUENT.items():
    for _word in set(_words.split()):
        _LANGUAGES.setdefault(_word, []).append(_name)

_RUSSIAN_WORDS = "что кто где когда почему сколько какой какая какое какие как это мне можно"
_RUSSIAN = frozenset(_RUSSIAN_WORDS.split())
_LETTERS = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")
_SCRIPTS = re.compile("([가-힣])|([ぁ-ヿ])|([一-鿿])|([\u0600-\u06ff])|([\u0400-\u04ff])")
_HAN_OR_KANA = re.compile("[ぁ-ヿ]")
_NOT_ARABIC = re.compile("[پچژگکیٹڈڑےں]")
_NOT_RUSSIAN = re.compile("[іїєґўђјљњћџѓќѕ]")
_TRADITIONAL = re.compile("[國為爲誰麼說時會這個們問嗎幾還後東車門開關對學體點電話錢樣]")


def language(question: str) -> str | None:
    """Recognise the language of a question.

    Returns:
        `ko`, `ja`, `zh`, `zh-Hant`, `ar`, `ru`, `en`, `de`, `fr`, `es`, `it`, `pt` or `nl`; None if unsure.
    """
    if question.isascii() or not (script := _SCRIPTS.search(question)):
        return _latin(question.lower())
    hangul, kana, han, arabic, _ = script.groups()
    if hangul:
        return "ko"
    if kana or (han and _HAN_OR_KANA.search(question)):
        return "ja"
    if han:
        return "zh-Hant" if _TRADITIONAL.search(question) else "zh"
    text = question.lower()
    if arabic:
        return None if _NOT_ARABIC.search(text) else "ar"
    return "ru" if not _NOT_RUSSIAN.search(text) and not _RUSSIAN.isdisjoint(_LETTERS.findall(text)) else None


def _latin(text: str) -> str | None:
    """Return the language with most frequent words; English needs one of them, the others two."""
    scores = {"es": 1} if "¿" in text or "¡" in text else {"de": 1} if "ß" in text else {}
    for word in set(_LETTERS.findall(text.replace("’", "'"))):
        for name in _LANGUAGES.get(word, ()):
            scores[name] = scores.get(name, 0) + 1
    if not scores:
        return None
    best = max(scores, key=scores.__getitem__)
    score = scores.pop(best)
    return best if score > max(scores.values(), default=0) and (score > 1 or best == "en") else None


def is_frequent(word: str, name: str) -> bool:
    """Return whether a word in lower case is one of the frequent words of a language."""
    return name in _LANGUAGES.get(word, ())
