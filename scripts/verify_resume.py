"""Check that runs resume exactly: `python scripts/verify_resume.py`; see `qa_lm.commands.verify_resume`."""

import sys

from qa_lm.commands.verify_resume import main

if __name__ == "__main__":
    sys.exit(main())
