"""Cut the vocabulary of a byte-level BPE, so that some ids stay the same apart from their numbers.

BPE joins, in a word, the pair of neighbours whose merge comes first, until no pair has a merge. A token is kept with
all tokens that BPE passes through on the way to it. Then the merges that lead to the kept tokens are kept too, in
their order, and a text whose tokens are all kept is encoded as before: at each step the merge that came first is still
there, and none was added. Any other text is encoded by smaller tokens, at worst one for each byte, as all bytes of the
vocabulary are kept.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from tokenizers import Tokenizer
from tokenizers.pre_tokenizers import ByteLevel

from qa_lm.data.tokenizer import FILE, json_object
from qa_lm.errors import UserError

KEY = "tokenizer.trim"
ODD_SETTINGS = ("unk_token", "dropout", "byte_fallback", "continuing_subword_prefix", "end_of_word_suffix")
"""Settings of BPE with which bytes are not all that a text is made of, or ids are not fixed."""
Merge = tuple[str, str]


class TrimmedTokenizer(NamedTuple):
    """A tokenizer with fewer tokens."""

    tokenizer: Tokenizer
    old_ids: list[int]
    """The former id of each token, ascending."""
    merges: tuple[int, int]
    """Number of merges before and after."""


def check_trimmable(content: Mapping[str, Any], name: str) -> None:
    """Check that a tokenizer is a byte-level BPE.

    Args:
        content: the content of tokenizer.json.
        name: what to call it in messages.

    Raises:
        UserError: it is of another kind, which the message names.
    """
    model = content.get("model") or {}
    kind = model.get("type", "unknown")
    odd = next((each for each in ODD_SETTINGS if model.get(each)), None)
    if kind != "BPE":
        found = f"is {kind}"
    elif odd is not None:
        found = f"is BPE with {odd}={model[odd]}"
    elif "ByteLevel" not in _kinds(content.get("pre_tokenizer")):
        found = "is BPE of characters"
    else:
        return
    raise UserError(f"{KEY}: needs a byte-level BPE, as GPT-2, Llama 3, Qwen and SmolLM2 have; {name} {found}", KEY)


def check_trimmable_folder(folder: Path) -> None:
    """Check the tokenizer.json of a folder, if it has one, see `check_trimmable`.

    Raises:
        UserError: see `check_trimmable`.
    """
    if content := json_object(folder / FILE):
        check_trimmable(content, str(folder))


def _kinds(node: Any) -> set[str]:
    """The types of a pre-tokenizer and its parts."""
    if not isinstance(node, Mapping):
        return set()
    return {str(node.get("type"))}.union(*map(_kinds, node.get("pretokenizers") or ()))


def trimmed(tokenizer: Tokenizer, used: Iterable[int], merges: int = 0) -> TrimmedTokenizer:
    """Keep the tokens that are used, all single bytes, all added (special) tokens, those of the first merges, and what
    these are merged from. Ids are renumbered in their old order; how text is split into words does not change.

    Args:
        tokenizer: a byte-level BPE, see `check_trimmable`.
        used: ids to keep.
        merges: number of first merges whose tokens are kept.

    Raises:
        UserError: the tokenizer cannot be trimmed.
    """
    content = json.loads(tokenizer.to_str())
    ids: dict[str, int] = tokenizer.get_vocab()
    added = {each.content for each in tokenizer.get_added_tokens_decoder().values()}
    listed = _merges(content)
    wanted = {_token(tokenizer, each) for each in used}
    wanted |= {part for left, right in listed[:merges] for part in (left, right, left + right)}
    kept = (_parts(wanted - added, listed) | {*ByteLevel.alphabet()}) & ids.keys() | added
    old_ids = sorted({ids[token] for token in kept})
    new = {old: number for number, old in enumerate(old_ids)}
    model = content["model"]
    merged = [each for each in listed if each[0] in kept and each[1] in kept and each[0] + each[1] in kept]
    vocabulary = {token: new[old] for token, old in model["vocab"].items() if token in kept}
    content["model"] = model | {"vocab": vocabulary, "merges": [list(each) for each in merged]}
    content["added_tokens"] = [each | {"id": new[ids[each["content"]]]} for each in content["added_tokens"]]
    content["post_processor"] = _renumbered(content.get("post_processor"), new)
    small = Tokenizer.from_str(json.dumps(content))
    if small.get_vocab() != {token: new[ids[token]] for token in kept}:
        raise UserError(f"{KEY}: this tokenizer cannot be trimmed: its ids have gaps or are not unique", KEY)
    return TrimmedTokenizer(small, old_ids, (len(listed), len(merged)))


def _token(tokenizer: Tokenizer, number: int) -> str:
    token: str | None = tokenizer.id_to_token(number)
    assert token is not None, f"the vocabulary has no id {number}"
    return token


def _merges(content: Mapping[str, Any]) -> list[Merge]:
    """All merges in order."""
    pairs = (each.split(" ", 1) if isinstance(each, str) else each for each in content["model"]["merges"])
    return [(left, right) for left, right in pairs]


def _parts(tokens: Iterable[str], merges: list[Merge]) -> set[str]:
    """These tokens, and those that BPE passes through on the way to them."""
    rank = {merge: number for number, merge in enumerate(merges)}
    found: set[str] = set()
    for token in tokens:
        parts = list(token)
        found.update((token, *parts))
        while len(parts) > 1:
            # The first merge at its first place, as BPE does it.
            best = min(range(len(parts) - 1), key=lambda at: rank.get((parts[at], parts[at + 1]), len(rank)))
            if (parts[best], parts[best + 1]) not in rank:
                break  # a token that no merge leads to: some tokenizers look whole words up
            parts[best : best + 2] = [parts[best] + parts[best + 1]]
            found.add(parts[best])
    return found


def _renumbered(processor: Any, new: Mapping[int, int]) -> Any:
    """A post-processor, which adds special tokens, with their new ids.

    Raises:
        UserError: it is of a kind that is not known.
    """
    if processor is None or processor["type"] == "ByteLevel":
        return processor
    if processor["type"] == "Sequence":
        return processor | {"processors": [_renumbered(each, new) for each in processor["processors"]]}
    if processor["type"] == "TemplateProcessing":
        tokens = processor["special_tokens"].items()
        return processor | {
            "special_tokens": {name: each | {"ids": [new[old] for old in each["ids"]]} for name, each in tokens}
        }
    raise UserError(f"{KEY}: this tokenizer cannot be trimmed: its post-processor is {processor['type']}", KEY)
