"""The trained pairs worth checking: `python scripts/ledger.py RUN_FOLDER`; see `qa_lm.commands.ledger`."""

import sys

from qa_lm.commands.ledger import main

if __name__ == "__main__":
    sys.exit(main())
