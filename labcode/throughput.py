"""``python -m labcode.throughput``: how fast a self-supervised training step is, and what bounds it."""

import sys

from .course.throughput import main

if __name__ == "__main__":
    sys.exit(main())
