"""The interactive course: chapters that run, a learner model that remembers, a tutor that cites (docs/course.md)."""
