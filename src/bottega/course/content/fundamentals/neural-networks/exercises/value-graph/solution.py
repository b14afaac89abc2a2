import math


class Number:
    def __init__(self, data: float, parents: tuple["Number", ...] = (), slopes: tuple[float, ...] = ()):
        self.data, self.parents, self.slopes, self.grad = data, parents, slopes, 0.0

    def __add__(self, other: "Number") -> "Number":
        return Number(self.data + other.data, (self, other), (1.0, 1.0))

    def __mul__(self, other: "Number") -> "Number":
        return Number(self.data * other.data, (self, other), (other.data, self.data))

    def tanh(self) -> "Number":
        t = math.tanh(self.data)
        return Number(t, (self,), (1 - t**2,))

    def backward(self) -> None:
        order, seen = [], set()

        def visit(node):
            if id(node) not in seen:
                seen.add(id(node))
                for parent in node.parents:
                    visit(parent)
                order.append(node)

        visit(self)
        for node in order:
            node.grad = 0.0
        self.grad = 1.0
        for node in reversed(order):
            for parent, slope in zip(node.parents, node.slopes):
                parent.grad += node.grad * slope
