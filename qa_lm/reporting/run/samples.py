"""Twenty sample answers: trained and held out, right and wrong, the same ones each time."""

from typing import Any

from qa_lm.reporting.run.board import SPLITS, thinned
from qa_lm.reporting.wording import clipped
from qa_lm.run.reader import Answer

COUNT = 20


def sample_answers(answers: list[Answer]) -> list[dict[str, Any]]:
    """Answers as the report shows them: the trained ones first, in the order of the file.

    Each of the four kinds, trained or held out and right or wrong, gets a quarter of the places; what one kind cannot
    fill goes to the others. Within a kind they are evenly spaced over the file.
    """
    kinds: dict[tuple[bool, bool], list[int]] = {(held, right): [] for held in (False, True) for right in (False, True)}
    for index, answer in enumerate(answers):
        kinds[answer["split"] != "train", answer["exact_match"]].append(index)
    places = _shared_out([len(members) for members in kinds.values()])
    chosen = {index for members, room in zip(kinds.values(), places, strict=True) for index in _spread(members, room)}
    return [_shown(answers[index]) for index in sorted(chosen, key=lambda i: (answers[i]["split"] != "train", i))]


def _shared_out(sizes: list[int]) -> list[int]:
    """A place for each kind in turn, until there are no more places or no more answers."""
    places = [0] * len(sizes)
    while sum(places) < min(COUNT, sum(sizes)):
        for kind, count in enumerate(sizes):
            if places[kind] < count and sum(places) < COUNT:
                places[kind] += 1
    return places


def _spread(members: list[int], room: int) -> list[int]:
    return members[:room] if room < 2 else thinned(members, room)


def _shown(answer: Answer) -> dict[str, Any]:
    split, relation = answer["split"], answer["relation"] or answer["held_out"]
    return {
        "question": clipped(answer["question"]),
        "answer": clipped(answer["answer"]),
        "generated": clipped(answer["generated"]) or "(empty answer)",
        "mark": "right" if answer["exact_match"] else "nearly" if answer["normalised_exact_match"] else "wrong",
        "kind": SPLITS[split] + (f": {relation}" if relation else ""),
        "probability": answer["probability"],
        "stopped": answer["stopped"],
    }
