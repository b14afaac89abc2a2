"""A language model as judge: scores and comparisons of answers, and how far the judge can be trusted."""
