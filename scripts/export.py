"""Write a model for other tools: `python scripts/export.py RUN --to gguf --prove`; see `qa_lm.commands.export`."""

import sys

from qa_lm.commands.export import main

if __name__ == "__main__":
    sys.exit(main())
