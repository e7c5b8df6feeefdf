"""``python -m labcode.leaderboard``: ten methods at the size that others publish."""

import sys

from .course.leaderboard import main

if __name__ == "__main__":
    sys.exit(main())
