"""Choose sample answers for the report: trained and held out, right and wrong. The choice is deterministic."""

from qa_lm.reporting.run.board import SPLITS, thin_out
from qa_lm.reporting.wording import excerpt, percent
from qa_lm.run.reader import Answer

COUNT = 20
VERDICTS = {"right": "✓ right", "nearly": "≈ nearly", "wrong": "✗ wrong"}


def sample_answers(answers: list[Answer]) -> list[dict[str, str]]:
    """Choose at most `COUNT` answers, trained pairs first, in the order of the file.

    Each of the four kinds (trained or held out, right or wrong) gets a quarter of the places. Places that a kind cannot
    fill go to the others. Within a kind, answers are evenly spaced over the file.
    """
    kinds: dict[tuple[bool, bool], list[int]] = {(held, right): [] for held in (False, True) for right in (False, True)}
    for index, answer in enumerate(answers):
        kinds[answer["split"] != "train", answer["exact_match"]].append(index)
    places = _allocate([len(members) for members in kinds.values()])
    chosen = {index for members, room in zip(kinds.values(), places, strict=True) for index in _spread(members, room)}
    return [_shown(answers[index]) for index in sorted(chosen, key=lambda i: (answers[i]["split"] != "train", i))]


def _allocate(sizes: list[int]) -> list[int]:
    """Give each kind a place in turn, until no places or no answers are left."""
    places = [0] * len(sizes)
    while sum(places) < min(COUNT, sum(sizes)):
        for kind, count in enumerate(sizes):
            if places[kind] < count and sum(places) < COUNT:
                places[kind] += 1
    return places


def _spread(members: list[int], room: int) -> list[int]:
    return members[:room] if room < 2 else thin_out(members, room)


def _shown(answer: Answer) -> dict[str, str]:
    relation, probability = answer["relation"] or answer["held_out"], answer["probability"]
    kind = SPLITS[answer["split"]] + (f": {relation}" if relation else "")
    notes = [kind] if probability is None else [kind, f"probability of being right {percent(probability)}"]
    mark = "right" if answer["exact_match"] else "nearly" if answer["normalised_exact_match"] else "wrong"
    return {
        "question": excerpt(answer["question"]),
        "answer": excerpt(answer["answer"]),
        "generated": excerpt(answer["generated"]) or "(empty answer)",
        "mark": mark,
        "verdict": VERDICTS[mark],
        "notes": "; ".join([*notes, *([] if answer["stopped"] else ["did not end on its own"])]),
    }
