"""transformers 4, which qa_lm does not run on, gives the answers of model/ too."""

import json
import os
import subprocess
import sys

import pytest

from qa_lm.config.enums import AnswerMode
from qa_lm.inference.answerer import Answerer
from tests.conftest import ROOT
from tests.data.pretrained.packages import unpacked

pytestmark = pytest.mark.slow
PACKAGES = ("transformers==4.57.6", "huggingface_hub==0.36.2", "tokenizers==0.22.2")
ASK = """
import json, sys
import transformers
assert transformers.__version__.startswith("4.")
asked = transformers.pipeline("text-generation", model=sys.argv[1])
outputs = [asked([{"role": "user", "content": each}], return_full_text=False) for each in json.load(sys.stdin)]
print(json.dumps([output["generated_text"] for (output,) in outputs]))
"""


def test_transformers_4_answers_the_same(learnt_run):
    path = os.pathsep.join(str(unpacked(each)) for each in PACKAGES)
    answerer, folder = Answerer.load(learnt_run.folder), learnt_run.folder / "model"
    questions = [answer.question for answer in learnt_run.answers] + ["Is <|endoftext|> text?"]
    done = subprocess.run(
        [sys.executable, "-c", ASK, str(folder)],
        input=json.dumps(questions),
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        encoding="utf-8",
        cwd=ROOT.parent,
    )
    assert done.returncode == 0, done.stderr
    found = [answerer.template.answer_from(text) for text in json.loads(done.stdout)]
    wanted = answerer.answer(questions, 200, mode=AnswerMode.free)
    stopped = [each for each, answer in zip(found, wanted, strict=True) if answer.stopped]
    assert len(stopped) >= 5
    assert stopped == [answer.answer for answer in wanted if answer.stopped]
