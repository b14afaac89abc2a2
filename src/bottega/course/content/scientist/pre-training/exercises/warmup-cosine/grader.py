from bottega.course.grading import close, expect


def check_warmup(task):
    """The warm-up rises in equal steps and ends at 1."""
    for step in range(4):
        close(task.factor(step, 100, 4, 0.1), (step + 1) / 4, 1e-12, f"factor({step}, 100, 4, 0.1)")
    close(task.factor(4, 100, 4, 0.1), 1.0, 1e-12, "factor(4, 100, 4, 0.1)", "the first step behind the warm-up has the peak")


def check_middle_and_end(task):
    """Half-way down it is half-way to the floor; at the end it is the floor."""
    close(task.factor(55, 100, 10, 0.2), 0.6, 1e-12, "factor(55, 100, 10, 0.2)")
    close(task.factor(100, 100, 10, 0.2), 0.2, 1e-12, "factor(100, 100, 10, 0.2)")


def check_no_warmup(task):
    """Without a warm-up it begins at the peak."""
    close(task.factor(0, 50, 0, 0.0), 1.0, 1e-12, "factor(0, 50, 0, 0.0)")


def check_falls(task):
    """Behind the warm-up it only falls, and never below the floor."""
    for steps, warmup, floor in ((60, 5, 0.0), (200, 50, 0.1), (31, 1, 0.5)):
        values = [task.factor(step, steps, warmup, floor) for step in range(warmup, steps + 1)]
        expect(all(a >= b for a, b in zip(values, values[1:])), "it rises again", f"factor(s, {steps}, {warmup}, {floor})")
        expect(min(values) >= floor - 1e-12, "it falls below the floor", f"factor(s, {steps}, {warmup}, {floor})", floor, min(values))
