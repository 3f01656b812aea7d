"""Ask a trained model: `python scripts/ask.py RUN_FOLDER "What is 2 + 2?"`; see `qa_lm.commands.ask`."""

import sys

from qa_lm.commands.ask import main

if __name__ == "__main__":
    sys.exit(main())
