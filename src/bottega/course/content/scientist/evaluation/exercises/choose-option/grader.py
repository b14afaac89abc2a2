from bottega.course.grading import equal, raises

GIVEN = [[-1.0, -1.0], [-0.5, -0.5, -0.5, -0.5, -0.5], [-2.2]]
ALONE = [[-1.0, -1.2], [-3.0, -3.0, -0.5, -0.5, -0.5], [-2.0]]
TEXTS = ["no", "certainly", "é"]


def check_sum(task):
    """By the sum the short and likely one wins."""
    equal(task.choose(GIVEN, ALONE, TEXTS, "sum"), 0, call='choose(…, "sum")')
    equal(task.choose([[-1.0, -9.0], [-5.0, -4.0]], [[0.0], [0.0]], ["a", "b"], "sum"), 1, call='choose([[-1, -9], [-5, -4]], …, "sum")')


def check_bytes(task):
    """By the byte the long one wins, and bytes are no characters."""
    equal(task.choose(GIVEN, ALONE, TEXTS, "bytes"), 1, call='choose(…, "bytes")')
    equal(task.choose([[-3.0], [-2.0]], [[0.0], [0.0]], ["éé", "a"], "bytes"), 0, call='choose([[-3], [-2]], …, ["éé", "a"], "bytes")')


def check_question(task):
    """What the question adds: an option that is likely anyway says little."""
    equal(task.choose(GIVEN, ALONE, TEXTS, "question"), 1, call='choose(…, "question")')
    equal(task.choose([[-1.0], [-4.0]], [[-0.5], [-9.0]], ["the", "photosynthesis"], "question"), 1, call='choose([[-1], [-4]], [[-0.5], [-9]], …, "question")')


def check_ties(task):
    """Of equal options the first; another norm is an error."""
    equal(task.choose([[-1.0], [-1.0]], [[-1.0], [-1.0]], ["a", "b"], "sum"), 0, call="two equal options")
    raises(ValueError, task.choose, GIVEN, ALONE, TEXTS, "mean", call='choose(…, "mean")')
