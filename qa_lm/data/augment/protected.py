"""What no rule may touch: negations, numbers, code, addresses, paths."""

import re

_NEGATIONS = """
    no not never none nor neither nobody nothing nowhere cannot without except unless hardly dont doesnt didnt isnt
    arent wasnt werent cant couldnt wont wouldnt shouldnt havent hasnt hadnt
    nicht kein keine keinen keinem keiner keines nie niemals niemand nichts nirgends ohne außer weder
    ne pas jamais sans aucun aucune rien personne ni non sauf plus
    nunca sin ningún ninguna ninguno ningun nadie nada jamás jamas tampoco excepto
    senza mai nessun nessuno nessuna niente nulla né tranne
    não nao sem nem nenhum nenhuma ninguém ninguem exceto
    niet geen nooit niemand niets nergens zonder behalve
    не нет ни никогда без никто ничто ничего никого нельзя никак нигде кроме
    لا ليس ليست لم لن بدون غير دون ما
"""
_NUMBERS = """
    zero one two three four five six seven eight nine ten eleven twelve half twice double triple once thrice
    thirteen fourteen fifteen sixteen seventeen eighteen nineteen
    twenty thirty forty fifty sixty seventy eighty ninety hundred thousand million billion trillion
    hundreds thousands millions billions first second third fourth fifth sixth seventh eighth ninth tenth
    eins zwei drei vier fünf sechs sieben acht neun zehn hundert tausend halb doppelt
    deux trois quatre cinq sept huit neuf cent cents mille demi double
    dos tres cuatro cinco seis siete ocho nueve diez cien ciento mil medio doble
    due tre quattro cinque sei sette otto nove dieci cento mezzo doppio
    dois três quatro sete oito nove dez cem meio dobro
    twee drie vijf zeven negen tien honderd duizend half dubbel
    один два три четыре пять шесть семь восемь девять десять сто тысяча
"""
NEGATIONS = frozenset(_NEGATIONS.split())
"""Words of negation, in lower case."""
_KEPT = NEGATIONS | frozenset(_NUMBERS.split())
_KOREAN_KEPT = re.compile(
    "[안못않없]|아[니닌]|말[고아자]|[^ ]지마|하나|[둘셋넷]|다섯|여섯|일곱|여덟|아홉|스물|서른|마흔|쉰"
)
"""Korean writes negations within words; a word with one of these syllables stays as it is."""

LONGEST = 400
"""Characters; longer texts keep all but their surface."""
_LIMITED = re.compile(
    r"[\t\n\r\v\f\x1c-\x1e\x85\u2028\u2029`{}\[\]<>|\\=]"  # line breaks, tabs, code
    r"|(?<!\S)--?[A-Za-z]|\$[A-Za-z_({]|\w\(\)|&&|::|->"  # flags, variables, calls
)
_TECHNICAL = re.compile(r"[/@_#~%&+]|\w\.\w\w|\w:\S")

_OFFENSIVE = re.compile(
    r"nig+[aeou]|cunt|shit|fuck|cock|\bdick|pubic|\bwhor|\bslut|시발|씨발|씹|좆|[보자]지|병신|새끼|지랄"
)
"""Insults that one wrong key makes of Niger, count, shift or 신발."""
_OTHER_TEXT = """
    county love loved form lost list lest lass wide wife host hose most mist mast mean
    men made male make sing song son fond fist last least late later latter former farmer
    founder fonder widow window bother brother month mouth moth quite quiet angle angel place plane planet
    plant trail trial united untied martial marital casual causal states status capitol stated
"""
_OTHER_WORDS = frozenset(_OTHER_TEXT.split())
"""Words that one wrong key makes of country, live, list, first, founder and other frequent words of questions."""


def is_limited(question: str) -> bool:
    """Return whether a text holds line breaks, tabs or code, or is long: only its surface may change."""
    return len(question) > LONGEST or _LIMITED.search(question) is not None


def is_technical(text: str) -> bool:
    """Return whether a text holds a URL, an e-mail address, a path or a file name."""
    return _TECHNICAL.search(text) is not None


def is_kept(word: str) -> bool:
    """Return whether a word is a negation or a number."""
    word = word.lower()
    return word in _KEPT or (not word.isascii() and _KOREAN_KEPT.search(word) is not None)


def is_other_word(typed: str) -> bool:
    """Return whether a typo makes an insult, or another word that asks for something else."""
    word = typed.lower()
    return word in _OTHER_WORDS or _OFFENSIVE.search(word) is not None
