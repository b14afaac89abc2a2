import torch
from torch import nn

from bottega.course.grading import close, expect


def _data(seed, count=40):
    draw = torch.Generator().manual_seed(seed)
    x = torch.randn(count, 3, generator=draw, dtype=torch.float64)
    y = (x[:, 0] * x[:, 1] > 0).long()
    return x, y


def _net(drop, seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 16), nn.Tanh(), nn.Dropout(drop), nn.Linear(16, 2)).double()


def _parameters(net):
    return torch.cat([p.detach().flatten() for p in net.parameters()])


def check_one_step(task):
    """A single step moves the weights along the gradient of the cross-entropy of the scores."""
    x, y = _data(0)
    ours, theirs = _net(0.0), _net(0.0)
    before = _parameters(theirs)
    nn.functional.cross_entropy(theirs(x), y).backward()
    gradient = torch.cat([p.grad.flatten() for p in theirs.parameters()])
    task.train(ours, torch.optim.SGD(ours.parameters(), lr=0.1), [(x, y)], x, y, 1)
    close(_parameters(ours), before - 0.1 * gradient, 1e-9, "the weights after one step of SGD",
          "nn.CrossEntropyLoss takes scores: it has a log-softmax inside")


def check_more_steps(task):
    """Each step uses the gradient of its own batch only."""
    x, y = _data(1)
    batches = [(x[:20], y[:20]), (x[20:], y[20:])]
    ours, theirs = _net(0.0), _net(0.0)
    for part, labels in batches:
        theirs.zero_grad()
        nn.functional.cross_entropy(theirs(part), labels).backward()
        with torch.no_grad():
            for p in theirs.parameters():
                p -= 0.1 * p.grad
    task.train(ours, torch.optim.SGD(ours.parameters(), lr=0.1), batches, x, y, 1)
    close(_parameters(ours), _parameters(theirs), 1e-9, "the weights after two batches",
          "backward() adds to the gradients that are there")


def check_validation(task):
    """The loss that is returned is that of the whole network, without dropout."""
    x, y = _data(2)
    net = _net(0.5)
    got = task.train(net, torch.optim.SGD(net.parameters(), lr=0.0), [(x, y)], x, y, 3)
    net.eval()
    with torch.no_grad():
        expected = float(nn.functional.cross_entropy(net(x), y))
    close(got, expected, 1e-9, "train(net with dropout, rate 0, …)", "validation has no dropout")


def check_training_has_dropout(task):
    """Dropout works in every epoch of training, also after a validation."""
    modes = []
    x, y = _data(3)
    net = _net(0.5)
    net[2].register_forward_hook(lambda module, inputs, out: modes.append(module.training))
    task.train(net, torch.optim.SGD(net.parameters(), lr=0.01), [(x, y), (x, y)], x, y, 3)
    expect(modes == [True, True, False] * 3, "train() and eval() have to be set in turn, in every epoch",
           "whether dropout is at work, call by call, over 3 epochs of 2 batches", [True, True, False] * 3, modes)


def check_best_weights(task):
    """The weights are those of the best epoch, not of the last."""
    x, y = _data(4)
    net = _net(0.0)
    wrong = 1 - y  # learning the opposite makes the loss on the held-out labels rise from epoch to epoch
    got = task.train(net, torch.optim.SGD(net.parameters(), lr=0.5), [(x, wrong)], x, y, 8)
    net.eval()
    with torch.no_grad():
        now = float(nn.functional.cross_entropy(net(x), y))
    close(now, got, 1e-9, "the loss of the network that is left, and the loss that was returned",
          "a state_dict shares memory with the weights, and they go on moving")
