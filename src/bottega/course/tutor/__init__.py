"""The tutor: it answers from the course's own text, shows where it stands, and says when it does not know."""
