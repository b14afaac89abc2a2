import torch
import torch.nn.functional as F

from bottega.course.grading import close, equal, expect


def drawn(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def check_first_token(task):
    """The first token sees only itself."""
    q, k, v = (drawn(i, 1, 1, 4, 8) for i in range(3))
    close(task.causal_attention(q, k, v)[0, 0, 0], v[0, 0, 0], 1e-5, "causal_attention(q, k, v)[0, 0, 0]",
          "the first token can only copy its own value")


def check_even_scores(task):
    """Equal scores give the mean of what is seen."""
    q, k, v = torch.zeros(1, 1, 3, 2), torch.zeros(1, 1, 3, 2), torch.tensor([[[[0.0, 6], [2, 0], [4, 0]]]])
    close(task.causal_attention(q, k, v)[0, 0], torch.tensor([[0.0, 6], [1, 3], [2, 2]]), 1e-5,
          "causal_attention(zeros, zeros, [[0, 6], [2, 0], [4, 0]])", "with equal scores each row is the mean of the values up to it")


def check_against_torch(task):
    """Random shapes: torch's own attention."""
    for seed in range(20):
        shape = [(1, 1, 1, 1), (2, 3, 5, 4), (1, 2, 17, 8), (3, 1, 9, 16)][seed % 4]
        q, k, v = (drawn(10 * seed + i, *shape) for i in range(3))
        close(task.causal_attention(q, k, v), F.scaled_dot_product_attention(q, k, v, is_causal=True), 1e-5,
              f"causal_attention of shape {shape}")


def check_no_leak(task):
    """Nothing leaks from the future: a changed last token changes no earlier output."""
    q, k, v = (drawn(i, 1, 2, 6, 4) for i in range(3))
    before = task.causal_attention(q, k, v)
    k2, v2 = k.clone(), v.clone()
    k2[..., -1, :], v2[..., -1, :] = 100.0, -100.0
    after = task.causal_attention(q, k2, v2)
    equal(after[..., :-1, :], before[..., :-1, :], "after changing token 5", "outputs 0 to 4 must stay bit for bit the same")
    expect(not torch.equal(after[..., -1, :], before[..., -1, :]), "the changed token must see its own change")
