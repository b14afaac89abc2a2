"""Numbers that the loss, the optimiser and the memory estimate need, apart from torch."""

# Logits held at a time; 4 Mi values are 16 MiB in float32, which stays near the processor's cache.
CHUNK_VALUES = 2**22
# Values of matrices that Muon orthogonalises at once: small ones gain from company, large ones do not.
STACKED_VALUES = 2**22
# Answers that a rollout writes at once, and the tokens of a block of its cache.
ROLLOUT_BATCH, CACHE_BLOCK = 32, 16
