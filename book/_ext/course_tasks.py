"""The table of graded tasks, read from the chapters' twins: ``course-tasks``."""

import sys
from html import escape
from pathlib import Path

from course_data import Course
from course_html import Link, table

sys.path.append(str(Path(__file__).resolve().parent.parent))  # where assignments.py is


def tasks_html(course: Course, link: Link) -> str:
    """Every graded task with its chapter, a link to the exercise, and its points."""
    from assignments import read

    rows, total = [], 0
    for chapter in course.chapters():
        twin = course.root / f"{chapter.page}.py"
        for task in read(twin)[1] if chapter.written and twin.exists() else ():
            exercise = f'<a href="{link(chapter.page, f"ex-{task.name}")}">{escape(task.title)}</a>'
            each = " + ".join(str(points) for _, points in task.tests)
            rows.append(("", [escape(chapter.slug), exercise, each, str(task.points)]))
            total += task.points
    if not rows:
        return '<p class="quiet">No chapter has a graded task yet.</p>'
    return table(
        ["Assignment", "Task", "Points by cell of tests", "Points"],
        rows,
        cls="tasks",
        label="Graded tasks",
        caption=f"{len(rows)} graded tasks, {total} points",
    )
