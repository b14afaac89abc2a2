"""The course in the terminal, on the same state as the pages."""
