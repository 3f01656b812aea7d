"""What a sweep found: `python scripts/sweep_report.py SWEEP_FOLDER`; see `qa_lm.commands.sweep_report`."""

import sys

from qa_lm.commands.sweep_report import main

if __name__ == "__main__":
    sys.exit(main())
