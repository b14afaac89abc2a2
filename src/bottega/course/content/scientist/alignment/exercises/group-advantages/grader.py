import numpy as np

from bottega.course.grading import close, expect


def check_by_hand(task):
    """One right answer among four."""
    close(task.advantages(np.array([[1.0, 0, 0, 0]]), scale=False), np.array([[0.75, -0.25, -0.25, -0.25]]), 1e-12, "advantages([[1, 0, 0, 0]], scale=False)")
    expected = np.array([[0.75, -0.25, -0.25, -0.25]]) / 0.5001
    close(task.advantages(np.array([[1.0, 0, 0, 0]])), expected, 1e-9, "advantages([[1, 0, 0, 0]])")


def check_own_group(task):
    """Each group is held against itself."""
    got = task.advantages(np.array([[10.0, 11.0], [0.0, 1.0]]), scale=False)
    close(got, np.array([[-0.5, 0.5], [-0.5, 0.5]]), 1e-12, "advantages([[10, 11], [0, 1]], scale=False)")


def check_silent_group(task):
    """Equal rewards teach nothing."""
    with np.errstate(all="raise"):
        got = task.advantages(np.array([[1.0, 1.0, 1.0], [0.0, 0.0, 0.0]]))
    expect(bool(np.all(got == 0)), "not exactly zero", "advantages([[1, 1, 1], [0, 0, 0]])", 0, np.asarray(got).tolist())


def check_like_the_toolchain(task):
    """Random groups: the toolchain's own numbers."""
    import torch

    from bottega.train.losses.policy import group_advantages

    draw = np.random.default_rng(3)
    for scale, kind in ((True, "grpo"), (False, "dr_grpo")):
        for size in (2, 4, 8):
            rewards = draw.normal(size=(5, size))
            expected, _ = group_advantages(torch.tensor(rewards), kind)
            close(task.advantages(rewards.copy(), scale), expected.numpy(), 1e-9, f"five groups of {size}, scale={scale}")
