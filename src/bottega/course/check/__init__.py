"""The authors' linter: rules that every chapter keeps, and runs of everything in it that runs (docs/course.md)."""
