"""``python -m labcode.run``: a chapter without Jupyter, one paper of it, or the queue of full scale."""

import sys

from .course.command import main

if __name__ == "__main__":
    sys.exit(main())
