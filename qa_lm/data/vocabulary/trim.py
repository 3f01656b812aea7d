"""The trimmed tokenizer of a run, made from its training pairs and kept in the cache, with what was proved of it.

Held-out pairs do not choose the vocabulary; they are only counted.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from qa_lm.data.cache import cached_folder, key_of, read_meta
from qa_lm.data.chat.prompts import with_special_tokens
from qa_lm.data.encoding import TEMPLATE_FILE, PromptTemplate, encode_pairs
from qa_lm.data.pairs import Pair
from qa_lm.data.splits.draw import Split
from qa_lm.data.storage import arrays
from qa_lm.data.table import PairTable
from qa_lm.data.tokenizer import CONFIG, FILE, TextTokenizer, json_object
from qa_lm.data.vocabulary.rows import OLD_IDS, PROOF, old_ids_in
from qa_lm.data.vocabulary.trimming import KEY, check_trimmable, trimmed
from qa_lm.errors import UserError, reading
from qa_lm.run.atomic import write_json

COPIED = ("special_tokens_map.json", "chat_template.jinja", TEMPLATE_FILE)
"""Files of a tokenizer's folder that hold no vocabulary."""
MODEL_FILES = ("config.json", "generation_config.json")
"""Files that name ids of tokens."""


@dataclass(frozen=True)
class Trim:
    """A trimmed tokenizer."""

    folder: Path
    """A folder like that of the original tokenizer, with its chat template."""

    @cached_property
    def old_ids(self) -> list[int]:
        """The former id of each token, ascending."""
        return old_ids_in(self.folder) or []

    @cached_property
    def proof(self) -> dict[str, Any]:
        """What is known of it; the model's part is added when there is one.

        Returns:
            kept_merges: the setting; tokens, merges: numbers before and after; trained_texts, trained_tokens: of
            the training pairs; trained_texts_with_other_ids: 0; held_out_texts; held_out_texts_with_other_ids: how
            many have other tokens than before; held_out_tokens: numbers before and after.
        """
        return {name: value for name, value in read_meta(self.folder).items() if name != "sizes"}

    def save(self, folder: Path) -> None:
        """Write what is known next to a model."""
        write_json(folder / PROOF, self.proof | {OLD_IDS: self.old_ids})

    def __str__(self) -> str:
        """A part of a line for the user."""
        before, after = self.proof["tokens"]
        old, new = self.proof["held_out_tokens"]
        held_out = f"; held-out texts are {new / old:.2f} times as long" if old else ""
        return f"{before:,} tokens trimmed to {after:,}{held_out}"


def trim_vocabulary(
    tokenizer: TextTokenizer,
    templates: tuple[PromptTemplate, PromptTemplate],
    origin: Path | None,
    merges: int,
    table: PairTable,
    split: Split,
    root: Path,
) -> Trim:
    """Cut a vocabulary to the tokens of the training pairs.

    Args:
        tokenizer: the tokenizer.
        templates: the prompt template without and with the special tokens around a prompt.
        origin: the tokenizer's folder; None for GPT-2's vocabulary.
        merges: number of first merges whose tokens are kept besides.
        table: all pairs.
        split: which of them are trained.
        root: the cache folder.

    Raises:
        UserError: the tokenizer is not a byte-level BPE, or a trained text would get other ids.
    """
    check_trimmable(json.loads(tokenizer._tokenizer.to_str()), str(origin or "this tokenizer"))
    plain, template = templates
    trained, held_out = mask(table, split.train), mask(table, split.validation, split.test)
    named = _named_ids(origin)
    files = {name: _sha256(origin / name) for name in (*COPIED, CONFIG) if (origin / name).is_file()} if origin else {}
    key = key_of(
        kind="trim",
        tokenizer=tokenizer.fingerprint,
        pairs=table.fingerprint,
        sides=[mask_key(trained), mask_key(held_out)],
        templates=[asdict(plain), asdict(template)],
        merges=merges,
        files=files,
        named=named,
    )

    def make(folder: Path) -> dict[str, Any]:
        used = {tokenizer.eos_id, *tokenizer.end_ids, *named}
        for pairs in masked(table, trained):
            used.update(token for each in encode_pairs(pairs, tokenizer, template) for token in each.ids)
        small = trimmed(tokenizer._tokenizer, [each for each in used if tokenizer.token(each) is not None], merges)
        small.tokenizer.save(str(folder / FILE))
        _write_settings(folder, origin, tokenizer, small.old_ids)
        (folder / PROOF).write_text(json.dumps({OLD_IDS: small.old_ids}), encoding="utf-8")
        now = with_special_tokens(folder, plain)
        sizes = {"tokens": [tokenizer.vocab_size, len(small.old_ids)], "merges": list(small.merges)}
        before = (tokenizer, template)
        proof = _compared(masked(table, trained), before, now, small.old_ids, "trained")
        if changed := proof["trained_texts_with_other_ids"]:
            raise UserError(f"{KEY}: {changed:,} trained pairs would get other ids; please report this tokenizer", KEY)
        proof |= _compared(masked(table, held_out), before, now, small.old_ids, "held_out")
        return {"kept_merges": merges} | sizes | proof

    return Trim(cached_folder(root / "trimmed", key, make))


def mask(table: PairTable, *sides: np.ndarray) -> np.ndarray:
    """Whether each pair of a table is on one of these sides, bool, (pairs,)."""
    found = arrays.zeros(len(table), bool)
    for side in sides:
        for block in arrays.blocks(len(side)):
            found[side[block]] = True
    return found


def mask_key(wanted: np.ndarray) -> str:
    """sha256 of a mask, in hexadecimal."""
    digest = hashlib.sha256()
    for block in arrays.blocks(len(wanted)):
        digest.update(np.packbits(wanted[block]).data)
    return digest.hexdigest()


def masked(table: PairTable, wanted: np.ndarray) -> Iterator[list[Pair]]:
    """Iterate over the pairs of a mask in the order of the table, batch by batch."""
    at = 0
    for batch in table.batches():
        yield [pair for pair, keep in zip(batch, wanted[at : at + len(batch)], strict=True) if keep]
        at += len(batch)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _named_ids(origin: Path | None) -> list[int]:
    """Ids that the files of a model name, such as `bos_token_id`."""
    found: set[int] = set()
    for file in MODEL_FILES if origin else ():
        for name, value in json_object(Path(origin or "") / file).items():
            values = value if isinstance(value, list) else [value]
            found.update(each for each in values if name.endswith("_token_id") and type(each) is int and each >= 0)
    return sorted(found)


def _write_settings(folder: Path, origin: Path | None, tokenizer: TextTokenizer, old_ids: list[int]) -> None:
    """Write what else the folder of the original tokenizer holds."""
    settings = json_object(origin / CONFIG) if origin else {}
    if isinstance(decoder := settings.get("added_tokens_decoder"), dict):
        new = {str(old): str(number) for number, old in enumerate(old_ids)}
        settings["added_tokens_decoder"] = {new[old]: each for old, each in decoder.items() if old in new}
    settings["eos_token"] = getattr(tokenizer, "text_end", tokenizer.eos_token)
    (folder / CONFIG).write_text(json.dumps(settings), encoding="utf-8")
    for name in COPIED if origin else ():
        path = Path(origin or "") / name
        if path.is_file():
            with reading(path, "cannot be read"):
                (folder / name).write_bytes(path.read_bytes())


def _compared(
    batches: Iterator[list[Pair]],
    before: tuple[TextTokenizer, PromptTemplate],
    now: tuple[TextTokenizer, PromptTemplate],
    old_ids: list[int],
    name: str,
) -> dict[str, Any]:
    """Encode pairs by both tokenizers; `name` begins the names of the counts."""
    texts, changed, tokens = 0, 0, [0, 0]
    for pairs in batches:
        for old, new in zip(encode_pairs(pairs, *before), encode_pairs(pairs, *now), strict=True):
            texts += 1
            changed += old.ids != [old_ids[each] for each in new.ids]
            tokens = [tokens[0] + len(old.ids), tokens[1] + len(new.ids)]
    return {f"{name}_texts": texts, f"{name}_texts_with_other_ids": changed, f"{name}_tokens": tokens}
