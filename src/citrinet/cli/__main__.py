"""`python -m citrinet.cli`, for `accelerate launch`."""

import sys

from . import main

if __name__ == "__main__":
    sys.exit(main())
