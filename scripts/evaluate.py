"""Evaluate a model: `python scripts/evaluate.py RUN [data.path=FILE]`; see `qa_lm.commands.evaluate`."""

import sys

from qa_lm.commands.evaluate import main

if __name__ == "__main__":
    sys.exit(main())
