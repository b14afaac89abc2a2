"""Bottega: make, change, measure and serve language models, on your own machine."""
