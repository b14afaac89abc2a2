import copy

import torch
from torch import nn


def train(net, optimiser, batches, held_x, held_y, epochs: int) -> float:
    loss_of = nn.CrossEntropyLoss()
    best, kept = float("inf"), None
    for _ in range(epochs):
        net.train()
        for x, y in batches:
            loss = loss_of(net(x), y)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        net.eval()
        with torch.no_grad():
            judged = float(loss_of(net(held_x), held_y))
        if judged < best:
            best, kept = judged, copy.deepcopy(net.state_dict())
    net.load_state_dict(kept)
    return best
