"""Greetings and thanks around a question, in its own language."""

# ruff: noqa: RUF001 (letters and marks of other scripts)

import re
from dataclasses import dataclass

from qa_lm.data.augment.languages import is_frequent, language
from qa_lm.data.augment.rules import Generator
from qa_lm.data.augment.surface import MARKS


@dataclass(frozen=True)
class Phrases:
    """What people of one language write around a question."""

    before: tuple[str, ...]
    """Put before the question as they are."""
    asking: tuple[str, ...]
    """Put before a final question mark."""
    after: tuple[str, ...]
    """Put after a question with a final mark."""
    unmarked: tuple[str, ...]
    """Put after a question without a final mark."""


_PHRASES = {
    "en": Phrases(
        ("Hi, ", "Hello, ", "Hey, ", "Hi! ", "Hello there! ", "Hi there, ", "Quick question: ", "Good morning, "),
        (", please", " please"),
        (" Thanks!", " Thank you!", " Thanks.", " Thanks in advance!", " thanks", " thank you"),
        (", thanks", " thanks", ", thank you", ", please", " please"),
    ),
    "de": Phrases(
        ("Hallo, ", "Hi, ", "Guten Tag, ", "Hallo! ", "Kurze Frage: ", "Guten Morgen, "),
        (", bitte",),
        (" Danke!", " Vielen Dank!", " Danke im Voraus!", " danke"),
        (", danke", " danke", ", bitte"),
    ),
    "fr": Phrases(
        ("Bonjour, ", "Bonjour ! ", "Salut, ", "Petite question : ", "Bonsoir, "),
        (", s'il vous plaît", " svp"),
        (" Merci !", " Merci d'avance !", " merci", " Merci."),
        (", merci", " merci", " svp"),
    ),
    "es": Phrases(
        ("Hola, ", "¡Hola! ", "Buenos días, ", "Buenas tardes, ", "Una pregunta: ", "Buenas, "),
        (", por favor",),
        (" ¡Gracias!", " Gracias.", " Muchas gracias.", " gracias"),
        (", gracias", " gracias", ", por favor"),
    ),
    "it": Phrases(
        ("Ciao, ", "Buongiorno, ", "Salve, ", "Ciao! ", "Una domanda: ", "Buonasera, "),
        (", per favore",),
        (" Grazie!", " Grazie mille!", " grazie", " Grazie."),
        (", grazie", " grazie", ", per favore"),
    ),
    "pt": Phrases(
        ("Olá, ", "Oi, ", "Bom dia, ", "Boa tarde, ", "Olá! ", "Uma dúvida: "),
        (", por favor",),
        (" Obrigado!", " Obrigada!", " Muito obrigado.", " obrigado"),
        (", obrigado", " obrigada", ", por favor"),
    ),
    "nl": Phrases(
        ("Hallo, ", "Hoi, ", "Goedemorgen, ", "Goedemiddag, ", "Vraagje: ", "Hoi! "),
        (", alstublieft", " aub"),
        (" Bedankt!", " Alvast bedankt!", " Dank u wel!", " bedankt"),
        (", bedankt", " bedankt", " aub"),
    ),
    "ru": Phrases(
        ("Здравствуйте, ", "Здравствуйте! ", "Добрый день, ", "Добрый день! ", "Привет, ", "Подскажите, пожалуйста, "),
        (", пожалуйста",),
        (" Спасибо!", " Спасибо.", " Заранее спасибо!", " спасибо"),
        (", спасибо", " спасибо"),
    ),
    "ja": Phrases(
        ("こんにちは。", "こんにちは、", "すみません、", "質問です。", "お世話になります。"),
        (),
        ("教えてください。", "お願いします。", "よろしくお願いします。", "ありがとうございます。"),
        ("。教えてください", "。お願いします"),
    ),
    "zh": Phrases(
        ("你好，", "您好，", "你好！", "请问，", "想问一下，"), (), ("谢谢！", "谢谢", "谢谢。"), ("，谢谢", " 谢谢")
    ),
    "zh-Hant": Phrases(
        ("你好，", "您好，", "請問，", "想問一下，"), (), ("謝謝！", "謝謝", "謝謝。"), ("，謝謝", " 謝謝")
    ),
    "ar": Phrases(
        ("مرحبا، ", "السلام عليكم، ", "أهلا، ", "صباح الخير، ", "سؤال سريع: "),
        (" من فضلك", " لو سمحت"),
        (" شكرا", " شكرا لك", " شكرا جزيلا"),
        (" شكرا", " من فضلك", " لو سمحت"),
    ),
    "ko": Phrases(
        (
            "안녕하세요, ",
            "안녕하세요. ",
            "안녕하세요 ",
            "문의드립니다. ",
            "질문 있습니다. ",
            "궁금한 게 있는데요, ",
            "수고하십니다. ",
        ),
        (),
        (" 감사합니다.", " 감사합니다!", " 답변 부탁드립니다.", " 답변 부탁드려요", " 감사합니다"),
        (" 감사합니다", " 답변 부탁드립니다"),
    ),
    "ko-casual": Phrases(
        ("안녕, ", "안녕! ", "저기, ", "있잖아, ", "궁금한 게 있는데 ", "질문! "),
        (),
        (" 고마워", " 고마워!"),
        (" 고마워",),
    ),
}
_CASUAL = re.compile("[아어야지네나니냐래까줘해돼데걸군다라자봐와워여져써가서게](?<!니다)(?<!니까)$")
"""How a Korean sentence ends in casual speech; a customer's question ends in 요 or 니다, or is a noun."""
_GREETED = re.compile(
    r"^(?:hi|hey|hello|good|hallo|guten|bonjour|salut|hola|buenos|buenas|ciao|salve|buongiorno|olá|oi|bom|boa|hoi|привет"
    r"|здравствуйте|добрый)\b|안녕|반가|こんにち|すみません|你好|您好|[请請][问問]|مرحبا|السلام"
    r"|\b(?:please|thank\w*|bitte|danke|merci|svp|gracias|grazie|obrigad[oa]|bedankt|спасибо|пожалуйста|favor[e]?|aub)\b"
    r"|감사|고마|부탁|주세요|谢谢|謝謝|ください|お願い|شكرا|فضلك|سمحت",
    re.IGNORECASE,
)
_FIRST_WORD = re.compile(r"¿?([^\W\d_]+)")


def greeting(question: str, generator: Generator) -> str | None:
    """Add a greeting, "please" or thanks; None where the language is unsure or the text already has one."""
    name = language(question)
    if name is None or _GREETED.search(question):
        return None
    text = question.rstrip()
    bare = text.rstrip(MARKS).rstrip()
    if name == "ko" and _CASUAL.search(bare):
        name = "ko-casual"
    phrases = _PHRASES[name]
    if generator.chance(0.6):
        return _greeted(question, generator.choice(phrases.before), name, generator)
    if bare == text:
        return text + generator.choice(phrases.unmarked)
    marks = text[len(bare) :]
    if phrases.asking and marks.lstrip()[0] in "?؟" and bare[-1:].isalnum() and generator.chance(0.4):
        return bare + generator.choice(phrases.asking) + marks
    return text + generator.choice(phrases.after)


def _greeted(question: str, before: str, name: str, generator: Generator) -> str:
    """Put a greeting first; within a sentence half of the people write the next word in lower case, unless a name."""
    first = _FIRST_WORD.match(question)
    if first and before.endswith((", ", ": ")) and generator.chance(0.5) and is_frequent(first[1].lower(), name):
        start = first.start(1)
        question = question[:start] + question[start].lower() + question[start + 1 :]
    if question[:1].islower() and generator.chance(0.5):
        before = before.lower()
    return before + question
