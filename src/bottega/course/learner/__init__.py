"""What a learner knows: events that are only ever added, and what follows from them (docs/learner.md)."""
