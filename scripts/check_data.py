"""Check files of pairs: `python scripts/check_data.py FILE...`; see `qa_lm.commands.check_data`."""

import sys

from qa_lm.commands.check_data import main

if __name__ == "__main__":
    sys.exit(main())
