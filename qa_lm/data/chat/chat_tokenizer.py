"""A tokenizer with a chat template."""

from typing import TYPE_CHECKING, Any, NamedTuple

from tokenizers import Encoding, Tokenizer

from qa_lm.data.tokenizer import TextTokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


class SpecialToken(NamedTuple):
    """A special token in a text."""

    begin: int
    """Offset of its first character."""
    end: int
    """Offset after its last character. White space that the token takes in is part of it."""
    id: int


class ChatTokenizer(TextTokenizer):
    """A tokenizer with a chat template, of which only the template's own text may contain special tokens.

    Args:
        tokenizer: the tokenizer.
        eos_token: the token that ends an answer.
        template: the chat template, in Jinja.
        bos_token: the token that the template knows as `bos_token`.
        text_end: the token that ends a text; it may differ from the one that ends a turn.
    """

    def __init__(
        self, tokenizer: Tokenizer, eos_token: str, template: str, bos_token: str | None, text_end: str
    ) -> None:
        super().__init__(tokenizer, eos_token)
        self.template, self.bos_token, self.text_end = template, bos_token, text_end

    @classmethod
    def of(cls, tokenizer: TextTokenizer, template: str, bos_token: str | None) -> "ChatTokenizer":
        """A tokenizer with its chat template, before it is known which token ends a turn."""
        return cls(tokenizer._tokenizer, tokenizer.eos_token, template, bos_token, tokenizer.eos_token)

    def ending_with(self, eos_id: int) -> "ChatTokenizer":
        """The same tokenizer for answers that end with this token."""
        eos_token = str(self._tokenizer.id_to_token(eos_id))
        return ChatTokenizer(self._tokenizer, eos_token, self.template, self.bos_token, self.text_end)

    def encode_with_special(self, text: str) -> list[int]:
        """Encode a text of the template, in which special tokens are special."""
        return self._with_special(text).ids

    def special_tokens_in(self, text: str) -> list[SpecialToken]:
        """The special tokens in a text of the template, in order."""
        added = self._tokenizer.get_added_tokens_decoder()
        special = {token for token, each in added.items() if each.special}
        found = self._with_special(text)
        spans = zip(found.offsets, found.ids, strict=True)
        return [SpecialToken(*span, token) for span, token in spans if token in special]

    def _with_special(self, text: str) -> Encoding:
        self._tokenizer.encode_special_tokens = False
        try:
            return self._tokenizer.encode(text, add_special_tokens=False)
        finally:
            self._tokenizer.encode_special_tokens = True

    @property
    def end_ids(self) -> list[int]:
        """Ids at which generation stops: the end of a turn, and the end of a text where that is another token."""
        text_end = self._tokenizer.token_to_id(self.text_end)
        return [self.eos_id] if text_end in (None, self.eos_id) else [self.eos_id, text_end]

    def _determines_ids(self) -> str:
        return f"{super()._determines_ids()}\n{self.template}"

    def for_transformers(self, context: int, **settings: Any) -> "PreTrainedTokenizerFast":
        """The same tokenizer as an object of transformers, whose `apply_chat_template` writes special tokens."""
        ours = {"chat_template": self.template, "bos_token": self.bos_token, "split_special_tokens": False}
        return super().for_transformers(context, **(ours | settings))
