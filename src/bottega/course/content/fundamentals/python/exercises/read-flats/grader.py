import dataclasses
import random

from bottega.course.grading import equal, expect, raises


def flats(task, lines):
    bad = []
    found = list(task.read_flats(iter(lines), bad))
    return [(each.city, each.size, each.rent) for each in found], bad


def check_flat_holds_values(task):
    """A flat holds its values, compares by them, and cannot be changed."""
    flat = task.FlatRecord("Genoa", 80.0, 720.0)
    equal((flat.city, flat.size, flat.rent), ("Genoa", 80.0, 720.0), 'FlatRecord("Genoa", 80.0, 720.0)')
    equal(task.FlatRecord("Genoa", 80.0).rent, None, 'FlatRecord("Genoa", 80.0).rent')
    expect(flat == task.FlatRecord("Genoa", 80.0, 720.0), "two flats with the same values are not equal")
    raises(dataclasses.FrozenInstanceError, setattr, flat, "size", 1.0, call="flat.size = 1.0", why="the dataclass is not frozen")


def check_flat_refuses(task):
    """A flat with wrong values cannot be made."""
    for values, why in (
        (("", 80.0), "the city is empty"), (("  ", 80.0), "the city is only spaces"), (("Lecce", 0.0), "the size is 0"),
        (("Lecce", -3.0, 500.0), "the size is below 0"), (("Lecce", 80.0, 0.0), "the rent is 0"),
        (("Lecce", 80.0, -1.0), "the rent is below 0"),
    ):  # fmt: skip
        raises(ValueError, task.FlatRecord, *values, call=f"FlatRecord{values}", why=why)


def check_nan(task):
    """What is not a number is not above 0."""
    nan = float("nan")
    raises(ValueError, task.FlatRecord, "Lecce", nan, call='FlatRecord("Lecce", nan)', why="nan <= 0 is False, and nan > 0 is False too")
    raises(ValueError, task.FlatRecord, "Lecce", 80.0, nan, call='FlatRecord("Lecce", 80.0, nan)', why="a rent of nan is not above 0")


def check_good_lines(task):
    """Good lines become flats, in order; an empty rent is None."""
    lines = ["Genoa,80,720", " Milan , 50.5 , ", "Lecce,61,366.0\n"]
    got = flats(task, lines)
    equal(got, ([("Genoa", 80.0, 720.0), ("Milan", 50.5, None), ("Lecce", 61.0, 366.0)], []), f"read_flats({lines}, bad)")


def check_bad_lines(task):
    """Lines that give no flat are counted from 1, empty ones included."""
    lines = ["Genoa,eighty,720", "", "Turin,60", "Turin,60,600,1", "   ", "Turin,-60,600", "Turin,60,600", ",60,600", "Turin,nan,1"]
    found, bad = flats(task, lines)
    equal(found, [("Turin", 60.0, 600.0)], f"read_flats({lines}, bad)")
    equal(bad, [1, 3, 4, 6, 8, 9], f"bad, after read_flats({lines}, bad)", "the first line is 1, and empty lines count")


def check_random(task):
    """Random tables with spoiled lines."""
    draw = random.Random(0)
    for _ in range(60):
        lines, expected, wrong = [], [], []
        for number in range(1, draw.randint(1, 12) + 1):
            size, rent = draw.randint(20, 200), draw.choice([None, draw.randint(200, 2000)])
            kind = draw.choice(["good", "good", "gap", "word", "short", "minus"])
            line = {"gap": "", "word": f"Bari,x,{rent or ''}", "short": "Bari", "minus": f"Bari,{-size},5"}
            lines.append(line.get(kind, f"Bari,{size},{rent or ''}"))
            if kind == "good":
                expected.append(("Bari", float(size), None if rent is None else float(rent)))
            elif kind != "gap":
                wrong.append(number)
        equal(flats(task, lines), (expected, wrong), f"read_flats({lines}, bad)")


def check_lazy(task):
    """A flat comes as soon as its line is read."""
    read = []

    def endless():
        while len(read) < 1000:
            read.append(1)
            yield "Genoa,80,720"

    reader = task.read_flats(endless(), [])
    equal(len(read), 0, "lines read before the first flat is asked for", "a generator does nothing until it is asked")
    next(reader)
    equal(len(read), 1, "lines read for the first flat", "the table may be larger than the memory: read one line for one flat")


def check_bugs_pass(task):
    """An exception that is no ValueError reaches the caller."""
    raises((AttributeError, TypeError), lambda: list(task.read_flats([None], [])), call="list(read_flats([None], bad))",
           why="None is no line: that is a bug of the caller, and it was swallowed")

    def torn():
        yield "Genoa,80,720"
        raise OSError("the disk is gone")

    raises(OSError, lambda: list(task.read_flats(torn(), [])), call="list(read_flats(a file whose disk fails, bad))",
           why="the disk has failed, and the table looks complete")

    class Bad(str):
        def split(self, *_):
            raise KeyError("a bug")

    raises(KeyError, lambda: list(task.read_flats([Bad("Genoa,80,720")], [])), call="list(read_flats([a line whose split fails], bad))",
           why="only ValueError means that a line is bad")
