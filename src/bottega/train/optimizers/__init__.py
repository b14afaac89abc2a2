"""Optimisers whose states, or whose weights, take fewer bytes than AdamW's (docs/low_precision.md)."""
