from bottega.course.grading import equal, raises


def check_one_gpu(task):
    """On one GPU every stage is the same: 16 bytes a parameter."""
    for stage in range(4):
        equal(task.bytes_on_fullest(1000, 1, stage), 16_000, call=f"bytes_on_fullest(1000, 1, {stage})")


def check_stages(task):
    """Eight GPUs: each stage divides one kind more."""
    for stage, expected in enumerate((16_000, 5_500, 3_750, 2_000)):
        equal(task.bytes_on_fullest(1000, 8, stage), expected, call=f"bytes_on_fullest(1000, 8, {stage})")


def check_uneven(task):
    """What does not divide evenly is on the fullest."""
    equal(task.bytes_on_fullest(10, 4, 1), 2 * 10 + 2 * 10 + 12 * 3, call="bytes_on_fullest(10, 4, 1)")
    equal(task.bytes_on_fullest(10, 3, 3), 16 * 4, call="bytes_on_fullest(10, 3, 3)")
    equal(task.bytes_on_fullest(2, 8, 3), 16, call="bytes_on_fullest(2, 8, 3)")


def check_wrong(task):
    """Other stages and no GPUs are errors."""
    raises(ValueError, task.bytes_on_fullest, 10, 2, 4, call="bytes_on_fullest(10, 2, 4)")
    raises(ValueError, task.bytes_on_fullest, 10, 0, 1, call="bytes_on_fullest(10, 0, 1)")
