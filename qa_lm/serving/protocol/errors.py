"""Errors as the OpenAI API reports them."""

import json
from collections.abc import Mapping
from typing import Any

from starlette.responses import Response

KINDS = {401: "authentication_error", 403: "permission_error", 500: "server_error", 503: "server_error"}
"""`type` by status; `invalid_request_error` for all others."""


class ApiError(Exception):
    """A request that cannot be answered.

    Args:
        message: the reason, for the client.
        status: the HTTP status.
        param: the field of the request that is wrong.
        code: a short name for programs.
        headers: further headers of the response.
    """

    def __init__(
        self,
        message: str,
        status: int = 400,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.param, self.code = status, param, code
        self.headers = dict(headers or {})

    @property
    def content(self) -> dict[str, Any]:
        """The error as JSON."""
        kind = KINDS.get(self.status, "invalid_request_error")
        return {"error": {"message": str(self), "type": kind, "param": self.param, "code": self.code}}

    @property
    def response(self) -> Response:
        """The error as a response."""
        return JsonResponse(self.content, self.status, self.headers)


def check_name(name: str, served: str) -> None:
    """Check that a client means the model that is served.

    Raises:
        ApiError: it names another one.
    """
    if name != served:
        raise ApiError(f"this server has no model {name}; it has {served}", 404, "model", "model_not_found")


class JsonResponse(Response):
    """A response of JSON. A lone surrogate, which UTF-8 cannot hold, becomes a replacement character."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """Encode the content."""
        return encoded(content)


def encoded(content: object) -> bytes:
    """JSON in UTF-8, on one line."""
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
