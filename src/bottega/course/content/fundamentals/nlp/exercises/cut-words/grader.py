import random

from bottega.course.grading import equal, expect


def check_words_and_marks(task):
    """Words and marks come apart."""
    equal(task.words("It rained."), ["It", "rained", "."], call='words("It rained.")')
    equal(task.words("“Hardly,” he said"), ["“", "Hardly", ",", "”", "he", "said"], call='words("“Hardly,” he said")')
    equal(task.words("  \n\t "), [], call='words("  \\n\\t ")', why="spaces are no tokens")


def check_joined(task):
    """A hyphen or an apostrophe between letters joins; at an end it stands alone."""
    equal(task.words("didn't we’re state-of-the-art"), ["didn't", "we’re", "state-of-the-art"], call="words(\"didn't we’re state-of-the-art\")")
    equal(task.words("the dogs' home - well"), ["the", "dogs", "'", "home", "-", "well"], call="words(\"the dogs' home - well\")")
    equal(task.words("a--b"), ["a", "-", "-", "b"], call='words("a--b")')


def check_numbers(task):
    """A number keeps the marks between its digits, and no other."""
    equal(task.words("It cost 3.50, not 1,200."), ["It", "cost", "3.50", ",", "not", "1,200", "."], call='words("It cost 3.50, not 1,200.")')
    equal(task.words("I paid 3."), ["I", "paid", "3", "."], call='words("I paid 3.")')
    equal(task.words("$5 10.0.1"), ["$", "5", "10.0.1"], call='words("$5 10.0.1")')


def check_other_alphabets(task):
    """Letters are letters in every alphabet."""
    equal(task.words("un café à Łódź"), ["un", "café", "à", "Łódź"], call='words("un café à Łódź")')
    equal(task.words("где snake_case"), ["где", "snake", "_", "case"], call='words("где snake_case")')


def check_nothing_is_lost(task):
    """Random texts: the tokens are the text without its spaces."""
    draw = random.Random(5)
    for _ in range(300):
        text = "".join(draw.choice("ab é1.,-'’_$ \n") for _ in range(draw.randint(0, 20)))
        expect("".join(task.words(text)) == "".join(text.split()), "something was lost or changed", f"words({text!r})", "".join(text.split()), "".join(task.words(text)))
