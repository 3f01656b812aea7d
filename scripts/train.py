"""Train: `python scripts/train.py [group=choice] [key=value] [-m]`; docs/configuration.md has the settings."""

import sys

from qa_lm.commands.train import main

if __name__ == "__main__":
    sys.exit(main())
