"""Plain words: phrases that no text of the project may use, where the field has a word of its own."""

import re

import pytest

from tests.conftest import ROOT

BANNED = {
    r"gone on with|goes? on with|going on with|goes on\b|\bgo on\b|\bgoing on\b": "resume, continue",
    r"foretold|foretell": "estimate",
    r"\bbut for\b": "except for",
    r"\bby heart\b": "memorise",
    r"\bmend(s|ed|ing)?\b": "fix",
    r"(?<!there )\b(is|are|was) no (?!longer|more|less)\w+": "is not a",
    r"\bso many\b": "the number of",
    r"\btold\b|(?<!study\.)\btells?\b|\btelling\b": "print, warn, report",
    r"\bof others\b|\bof ones own\b|\bof one's own\b": "third-party; your own",
    r"\bbegun\b|\banew\b": "started; again",
    r"\bbeside\b": "next to, besides",
    r"\bharmless\b": "sanitize",
    r"\bunder way\b": "in progress",
    r"\bleaps?\b": "spike",
    r"\bsureness\b": "confidence",
    r"\bwholly\b": "entirely",
    r"\bnone of (ours|the usual ones)\b": "not one of",
    r"\bhad best\b|\bwhatever becomes\b|\bwhat becomes of\b|\bcome[s]? to its end\b": "plain words",
    r"\bcan have no effect\b|\bwithout effect\b": "has no effect; cannot change",
    r"\bvocabulary entries\b|\d+ entries\b": "tokens",
}
"""Phrase to what the documentation of PyTorch or scikit-learn would say."""


def texts() -> list[str]:
    found = [ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / "Makefile", *(ROOT / "docs").glob("*.md")]
    for top in ("qa_lm", "scripts", "conf", "examples"):
        for suffix in ("py", "yaml", "j2"):
            found += (ROOT / top).rglob(f"*.{suffix}")
    return sorted(path.relative_to(ROOT).as_posix() for path in found if path.name != "log.md")


@pytest.mark.parametrize("phrase", BANNED)
def test_no_text_uses(phrase):
    pattern = re.compile(phrase, re.IGNORECASE)
    places = [
        f"{name}:{number}: {match[0]!r}; say: {BANNED[phrase]}"
        for name in texts()
        for number, line in enumerate((ROOT / name).read_text(encoding="utf-8").splitlines(), start=1)
        if (match := pattern.search(line))
    ]
    assert places == []
