"""A file format of your own: text with lines that begin with `Q:` and `A:`, as in many FAQs.

From Python: `python examples/own_format.py`. On the command line, in the folder of this file:
`train.py trust=own_format data.path=pairs.faq`, or `check_data.py pairs.faq --trust own_format` to look at the file.
"""

from collections.abc import Iterator
from pathlib import Path

import qa_lm
from qa_lm.data.readers.files import as_text, opened
from qa_lm.data.readers.formats import ReadOptions
from qa_lm.data.readers.problems import BadLine, Found


@qa_lm.register_format(".faq")
def read_faq(path: Path, options: ReadOptions) -> Iterator[Found]:
    """Yields (line, record) for each pair, and a `BadLine` for each line that belongs to none."""
    question = None
    with opened(path) as file:  # unpacks .faq.gz as well
        for line, text in enumerate(as_text(file, options.encoding, "\n"), start=1):
            mark, _, rest = text.partition(":")
            if mark == "Q":
                question = (line, rest.strip())
            elif mark == "A" and question:
                yield question[0], {"question": question[1], "answer": rest.strip()}
                question = None
            elif text.strip():
                yield BadLine(line, "expected a line with Q: and then one with A:")


if __name__ == "__main__":
    Path("outputs").mkdir(exist_ok=True)
    pairs = "".join(f"Q: What is {i} + {i}?\nA: {i + i}\n\n" for i in range(10))
    Path("outputs/pairs.faq").write_text(pairs, encoding="utf-8")
    config = qa_lm.compose("data.path=outputs/pairs.faq", "model=tiny", "tokenizer=bpe", "trainer.max_epochs=5")
    run = qa_lm.train(config)
    print(run.answers[0])
