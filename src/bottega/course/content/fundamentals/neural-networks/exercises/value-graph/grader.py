import math
import random

from bottega.course.grading import close


def check_values(task):
    """Sums, products and tanh have the right values."""
    draw = random.Random(0)
    for _ in range(20):
        a, b = draw.uniform(-2, 2), draw.uniform(-2, 2)
        one, two = task.Number(a), task.Number(b)
        close((one + two).data, a + b, 1e-12, f"(Number({a:.3f}) + Number({b:.3f})).data")
        close((one * two).data, a * b, 1e-12, f"(Number({a:.3f}) * Number({b:.3f})).data")
        close(one.tanh().data, math.tanh(a), 1e-12, f"Number({a:.3f}).tanh().data")


def check_one_operation(task):
    """A sum, a product and a tanh have the right gradients."""
    draw = random.Random(1)
    for _ in range(20):
        a, b = draw.uniform(-2, 2), draw.uniform(-2, 2)
        one, two = task.Number(a), task.Number(b)
        top = one + two
        top.backward()
        close([top.grad, one.grad, two.grad], [1.0, 1.0, 1.0], 1e-12, "c = a + b; c.backward(); grads of c, a, b")
        one, two = task.Number(a), task.Number(b)
        (one * two).backward()
        close([one.grad, two.grad], [b, a], 1e-12, f"a = Number({a:.3f}); b = Number({b:.3f}); (a * b).backward(); grads of a, b",
              "the derivative of a·b by a is b")
        one = task.Number(a)
        one.tanh().backward()
        close(one.grad, 1 - math.tanh(a) ** 2, 1e-12, f"a = Number({a:.3f}); a.tanh().backward(); a.grad")


def check_used_twice(task):
    """A number that is used twice gets the sum of both gradients."""
    a = task.Number(3.0)
    (a * a).backward()
    close(a.grad, 6.0, 1e-12, "a = Number(3.0); (a * a).backward(); a.grad", "d(a²)/da = 2a")
    a = task.Number(3.0)
    b = a + a
    (b + a).backward()
    close(a.grad, 3.0, 1e-12, "a = Number(3.0); b = a + a; (b + a).backward(); a.grad")


def check_order(task):
    """A number passes its gradient on only when it is complete."""
    for swap in (False, True):
        a = task.Number(2.0)
        b = a * a
        c = b * a
        top = c + b if swap else b + c
        top.backward()
        close([a.grad, b.grad], [16.0, 3.0], 1e-12,
              f"a = Number(2.0); b = a * a; c = b * a; ({'c + b' if swap else 'b + c'}).backward(); grads of a, b",
              "b is used in two places: it needs both before it goes on to a")


def check_again(task):
    """A second backward() gives the same gradients again."""
    a, b = task.Number(2.0), task.Number(-0.5)
    top = (a * b).tanh()
    top.backward()
    first = [a.grad, b.grad]
    top.backward()
    close([a.grad, b.grad], first, 1e-12, "top.backward() twice", "the gradients of the first call are still in it")


def check_random_graphs(task):
    """On random graphs every gradient is the measured slope."""
    draw = random.Random(2)
    for case in range(30):
        plan = [(draw.choice("+*t"), draw.random(), draw.random()) for _ in range(draw.randint(1, 12))]
        start = [draw.uniform(-1, 1) for _ in range(3)]

        def made(values, plan=plan):
            nodes = [task.Number(each) for each in values]
            for kind, first, second in plan:
                one, two = nodes[int(first * len(nodes))], nodes[int(second * len(nodes))]
                nodes.append(one + two if kind == "+" else one * two if kind == "*" else one.tanh())
            return nodes

        nodes = made(start)
        nodes[-1].backward()
        for i in range(3):
            ends = [made([x + h * (j == i) for j, x in enumerate(start)])[-1].data for h in (1e-5, -1e-5)]
            close(nodes[i].grad, (ends[0] - ends[1]) / 2e-5, 1e-5, f"random graph {case}, gradient of number {i}")
