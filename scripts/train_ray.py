"""Train with several workers of a Ray cluster: see `qa_lm.commands.train_ray`."""

import sys

from qa_lm.commands.train_ray import main

if __name__ == "__main__":
    sys.exit(main())
