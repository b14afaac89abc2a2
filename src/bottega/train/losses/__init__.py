"""The losses of alignment as pure functions of log-probabilities, scores and rewards.

Every function takes plain tensors and returns losses that are not reduced, one for each pair,
example or token, so that the loop can divide their sum by a normaliser of the whole step; a batch
in one piece and in many then give the same gradient. What a loss is divided by stands in its
module's text.

Beside the losses come figures: a dict of 1-D tensors without gradient, one value for each thing
that the figure is about (each pair, each desirable example, each trained token). A step's figure
is the mean over all values of the step; sums and counts add up over parts and ranks.
"""
