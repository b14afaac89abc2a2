"""Measuring models: likelihood of text, two models on the same tokens, multiple choice, baselines, intervals."""
