"""A list of frequently asked questions, made by rules: distinct answers with several phrasings each."""

import random

from qa_lm.retrieval.known_pairs import KnownPairs

SYLLABLES = ("bra", "cle", "dor", "fen", "gli", "hup", "jas", "kom", "lur", "mip", "nor", "pel", "qua", "rit", "sov")
FRAMES = (
    "What about {}?",
    "More about {} please",
    "{}",
    "I would like to know {}",
    "Do you offer {}",
    "how is {} done",
)


def faq(answers: int = 60, phrasings: int = 4, seed: int = 0) -> tuple[KnownPairs, KnownPairs]:
    """Known pairs, and two more phrasings of each answer that are not among them.

    A phrasing names some of the three topics of its answer; neighbours share one of them.
    """
    draw = random.Random(seed)
    words = draw.sample([one + other for one in SYLLABLES for other in SYLLABLES], 3 * answers)
    known: list[tuple[str, str]] = []
    others: list[tuple[str, str]] = []
    for number in range(answers):
        topics = [words[2 * number], words[2 * number + 1], words[2 * answers + number // 3]]
        answer = f"It is {number * 37 % 1000} for {topics[0]}."
        asked: dict[str, None] = {}
        while len(asked) < phrasings + 2:
            named = draw.sample(topics, draw.randint(1, 3))
            if named != topics[2:]:  # which several answers share
                asked[draw.choice(FRAMES).format(" ".join(named))] = None
        pairs = [(question, answer) for question in asked]
        known += pairs[:phrasings]
        others += pairs[phrasings:]
    return pairs_of(known), pairs_of(others)


def pairs_of(pairs: list[tuple[str, str]]) -> KnownPairs:
    return KnownPairs([question for question, _ in pairs], [answer for _, answer in pairs])
