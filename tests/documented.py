"""The pages for users, and the commands that they show."""

import re

from tests.scripts_started import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
QUICK = [
    *("tokenizer=bpe", "tokenizer.vocab_size=300", "model=tiny", "model.hidden_size=64", "trainer.max_epochs=2"),
    "trainer.accelerator=cpu",
]
"""Settings that make a run of train.py last a second or two."""


def documented_commands(ours: bool) -> list[str]:
    """The lines of the ```bash blocks of `PAGES`, each once: those that run a script of ours, or the others.

    Blocks of ```sh need another environment or a cluster; they are not run here.
    """
    blocks = [each for page in PAGES for each in re.findall(r"```bash\n(.*?)```", page.read_text(), flags=re.DOTALL)]
    lines = [line for block in blocks for line in block.splitlines() if line.strip() and not line.startswith("#")]
    return [line for line in dict.fromkeys(lines) if line.startswith(".venv/bin/python scripts/") is ours]
