import numpy as np

from bottega.course.grading import close


def _one(task, ratio, advantage, epsilon=0.2):
    return task.clipped_loss(np.log(np.array([ratio])), np.zeros(1), np.array([advantage]), epsilon)


def check_same_weights(task):
    """With the weights that drew the tokens the loss is minus the mean advantage."""
    log_probs, advantages = -np.arange(4.0), np.array([1.0, -2.0, 3.0, 0.0])
    close(task.clipped_loss(log_probs, log_probs.copy(), advantages), -0.5, 1e-12, "clipped_loss(p, p, [1, -2, 3, 0])")


def check_good_token(task):
    """A good token earns no more once it is 1 + ε times as likely; if it has become rarer, it is wanted back."""
    close(_one(task, 1.5, 2.0), -2.4, 1e-9, "ratio 1.5, advantage 2")
    close(_one(task, 0.5, 2.0), -1.0, 1e-9, "ratio 0.5, advantage 2")


def check_bad_token(task):
    """A bad token is punished no further below 1 − ε; if it has become likelier, all of it counts."""
    close(_one(task, 0.5, -2.0), 1.6, 1e-9, "ratio 0.5, advantage -2")
    close(_one(task, 1.5, -2.0), 3.0, 1e-9, "ratio 1.5, advantage -2")


def check_like_the_toolchain(task):
    """Random tokens: the toolchain's own loss."""
    import torch

    from bottega.train.losses.policy import policy_loss

    draw = np.random.default_rng(1)
    for epsilon in (0.1, 0.2, 0.5):
        log_probs, old, advantages = -draw.exponential(1, 40), -draw.exponential(1, 40), draw.normal(size=40)
        tensors = [torch.tensor(each) for each in (log_probs, old, advantages)]
        expected, _ = policy_loss(*tensors, torch.arange(40), 40, clip_low=epsilon, clip_high=epsilon)
        close(task.clipped_loss(log_probs, old, advantages, epsilon), float(expected.mean()), 1e-9, f"40 random tokens, ε = {epsilon}")
