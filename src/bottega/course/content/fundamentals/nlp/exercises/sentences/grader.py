import random

from bottega.course.grading import equal

SHORT = {"dr.", "mr.", "e.g.", "i.e.", "p.m.", "vol."}


def _check(task, parts, why=""):
    text = " ".join(parts)
    equal(task.sentences(text, SHORT), parts, f"sentences({text!r}, abbreviations)", why)


def check_plain(task):
    """Full stops, exclamation and question marks end sentences."""
    _check(task, ["He came.", "Why?", "Nobody knew!", "Then he left."])
    _check(task, ["One sentence only."])
    _check(task, ["A text without a mark"])
    _check(task, ["It ended.", "This one has no mark"], "what stands behind the last mark is a sentence too")


def check_abbreviations(task):
    """An abbreviation ends no sentence, in capitals neither."""
    _check(task, ["We met Dr. Lee.", "He knew Mr. Hill."])
    _check(task, ["DR. Lee came.", "Vol. 2 is blue."], "compare in lower case")
    _check(task, ["He came (e.g. Tuesday) and (i.e. Wednesday) left.", "So did we."])
    _check(task, ["She wrote (Dr. Lee read it).", "It was good."], "an opening bracket is no part of the word")


def check_next_word(task):
    """A mark ends a sentence only before a capital or a digit."""
    _check(task, ["“Why?” asked nobody.", "All were gone."])
    _check(task, ["It cost 3.50 at first.", "Then 4 more."])
    _check(task, ["They sold it.", "20 people came."], "a sentence may begin with a number")
    _check(task, ['Was it her? asked Tom.', "It was."], "the word behind the mark begins small")


def check_quotes(task):
    """One closing quote or bracket may follow the mark, an opening one may come before the next word."""
    _check(task, ['"It is true."', 'He said so.'])
    _check(task, ['(It rained.)', '"Come in," she said.', 'We did.'])
    _check(task, ['He left.', '(Nobody knew why.)', '"So what?"', 'They laughed.'])


def check_spaces(task):
    """Spaces and line breaks are only borders of words."""
    equal(task.sentences("  He came.\n\nShe   left.  ", SHORT), ["He came.", "She left."], "sentences('  He came.\\n\\nShe   left.  ', abbreviations)")
    equal(task.sentences("   ", SHORT), [], "sentences('   ', abbreviations)")
    equal(task.sentences("", SHORT), [], "sentences('', abbreviations)")


def check_random(task):
    """Random texts come back in their parts."""
    draw = random.Random(0)
    for _ in range(40):
        parts = []
        for _ in range(draw.randint(1, 5)):
            words = [draw.choice(["Nobody", "Dr. Hill", "20", "Vol. 3", "She"])]
            words += [draw.choice(["came", "at 3.15", "e.g. today", "(i.e. now)", "with Mr. Lee", "U.S. style"]) for _ in range(draw.randint(1, 5))]
            parts.append(" ".join([*words, "there" + draw.choice([".", "!", "?", '."', "?)"])]))
        _check(task, parts)
