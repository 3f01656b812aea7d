"""The fields of a request's JSON, with their types checked."""

import json
from collections.abc import Mapping
from typing import Any

from qa_lm.serving.protocol.errors import ApiError

NAMES: dict[type, str] = {str: "a string", bool: "true or false", list: "a list", dict: "an object"}


def parsed(body: bytes) -> "Fields":
    """Read the body of a request.

    Raises:
        ApiError: it is not a JSON object in UTF-8.
    """
    try:
        content = json.loads(body.decode("utf-8"))
        json.dumps(content, ensure_ascii=False).encode("utf-8")  # refuses lone surrogates
    except UnicodeEncodeError:
        raise ApiError("the body contains text that is not valid Unicode") from None
    except (ValueError, RecursionError):
        raise ApiError("the body is not valid JSON in UTF-8") from None
    if not isinstance(content, dict):
        raise ApiError("the body must be a JSON object")
    return Fields(content)


class Fields:
    """The fields of an object. A field that is null counts as left out.

    Args:
        content: the object.
        place: where it stands in the request, for messages.
    """

    def __init__(self, content: Mapping[str, Any], place: str = "") -> None:
        self.content, self.place = content, place

    def wrong(self, name: str, what: str) -> ApiError:
        """The error for a field with a wrong value."""
        return ApiError(f"{self.path(name)}: {what}", param=self.path(name))

    def path(self, name: str) -> str:
        """The name of a field, with its place."""
        return f"{self.place}.{name}" if self.place else name

    def _typed(self, name: str, kind: type) -> Any:
        value = self.content.get(name)
        if value is not None and not isinstance(value, kind):
            raise self.wrong(name, f"must be {NAMES[kind]}")
        return value

    def text(self, name: str) -> str | None:
        """A string."""
        found: str | None = self._typed(name, str)
        return found

    def flag(self, name: str) -> bool:
        """A truth value; false if left out."""
        return bool(self._typed(name, bool))

    def items(self, name: str) -> list[Any] | None:
        """A list."""
        found: list[Any] | None = self._typed(name, list)
        return found

    def fields(self, name: str) -> "Fields | None":
        """An object."""
        found = self._typed(name, dict)
        return None if found is None else Fields(found, self.path(name))

    def whole(self, name: str, low: int, high: int) -> int | None:
        """A whole number from `low` to `high`."""
        value = self.content.get(name)
        if value is None:
            return None
        if type(value) is not int or not low <= value <= high:
            raise self.wrong(name, f"must be a whole number from {low} to {high}")
        return value

    def number(self, name: str, low: float, high: float) -> float | None:
        """A number from `low` to `high`."""
        value = self.content.get(name)
        if value is None:
            return None
        if type(value) not in (int, float) or not low <= value <= high:
            raise self.wrong(name, f"must be a number from {low:g} to {high:g}")
        return float(value)
