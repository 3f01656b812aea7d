"""llama.cpp, which runs GGUF files: the server of the package xllamacpp, on loopback, in this process."""

import json
import math
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qa_lm.errors import UserError, first_line
from qa_lm.inference.sampling import Continuation


@dataclass(frozen=True)
class LlamaCpp:
    """A model that llama.cpp has loaded; it ends with this object.

    Args:
        server: the server of xllamacpp.
    """

    server: Any

    @classmethod
    def load(cls, path: Path, context: int, threads: int, exact: bool) -> "LlamaCpp":
        """Load a file.

        Args:
            path: the GGUF file.
            context: tokens of prompt and answer together at most.
            threads: number of threads.
            exact: whether keys and values are kept in float32, as in training, instead of llama.cpp's float16.

        Raises:
            UserError: llama.cpp does not load it.
        """
        import xllamacpp

        parameters = xllamacpp.CommonParams()
        parameters.model.path = str(path)
        parameters.n_ctx, parameters.n_parallel, parameters.port = context, 1, 0
        parameters.warmup, parameters.verbosity = False, 0
        parameters.cpuparams.n_threads = threads
        if exact:
            parameters.cache_type_k = parameters.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
            parameters.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
        try:
            return cls(xllamacpp.Server(parameters))
        except Exception as error:  # of a library in C++
            raise UserError(f"{path}: llama.cpp cannot load it: {first_line(error)}") from None

    def ids(self, text: str, special: bool) -> list[int]:
        """The ids of a text.

        Args:
            text: the text.
            special: whether names of special tokens are special, and BOS is added where the file says so.
        """
        found = self._post("/tokenize", content=text, add_special=special, parse_special=special)["tokens"]
        return list(map(int, found))

    def prompt_ids(self, question: str) -> list[int]:
        """The ids that a chat has, whose only message is this question."""
        messages = [{"role": "user", "content": question}]
        return self.ids(str(self._post("/apply-template", messages=messages)["prompt"]), special=True)

    def answer(self, prompt: Sequence[int], eos_id: int, max_new_tokens: int) -> Continuation:
        """The greedy continuation of a prompt; log-probabilities that llama.cpp leaves out are nan."""
        found = self._post(
            "/completion",
            prompt=list(prompt),
            n_predict=max_new_tokens,
            samplers=["top_k"],
            top_k=1,
            n_probs=1,
            return_tokens=True,
            cache_prompt=False,
        )
        ids = list(map(int, found["tokens"]))
        steps = [float(step["top_logprobs"][0]["logprob"]) for step in found["completion_probabilities"]]
        if len(steps) != len(ids):  # llama.cpp leaves out tokens that end within a character
            steps = [math.nan] * len(ids)
        stopped = bool(ids) and ids[-1] == eos_id
        return Continuation(ids[:-1] if stopped else ids, stopped, steps)

    def _post(self, route: str, **body: Any) -> Any:
        request = urllib.request.Request(
            self.server.listening_address + route, json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request) as answer:
            return json.load(answer)
