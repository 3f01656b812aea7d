"""Plan a run without training: `python scripts/plan.py --device h100`; see `qa_lm.commands.plan`."""

import sys

from qa_lm.commands.plan import main

if __name__ == "__main__":
    sys.exit(main())
