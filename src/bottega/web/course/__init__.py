"""The course's pages: server-made HTML that works without JavaScript (docs/course.md)."""
