"""Serve a trained model over HTTP: `python scripts/serve.py RUN_FOLDER`; see `qa_lm.commands.serve`."""

import sys

from qa_lm.commands.serve import main

if __name__ == "__main__":
    sys.exit(main())
