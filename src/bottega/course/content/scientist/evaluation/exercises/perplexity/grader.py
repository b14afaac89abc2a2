import math

from bottega.course.grading import close, raises


def check_uniform(task):
    """A model that gives 50 words the same chance has the perplexity 50, whatever the texts' lengths."""
    loss = math.log(50)
    close(task.perplexity([[loss], [loss] * 7, [loss] * 3]), 50.0, 1e-9, "perplexity of ln 50 everywhere")


def check_weighted(task):
    """A token is a token: one hard word among many easy ones."""
    close(task.perplexity([[4.0], [1.0] * 9]), math.exp(1.3), 1e-9, "perplexity([[4], [1] * 9])")
    close(task.perplexity([[3.0, 1.0], [], [2.0]]), math.exp(2.0), 1e-9, "perplexity([[3, 1], [], [2]])")


def check_bits(task):
    """One byte, one bit."""
    close(task.bits_per_byte([[math.log(2)]], ["a"]), 1.0, 1e-12, 'bits_per_byte([[ln 2]], ["a"])')
    close(task.bits_per_byte([[1.0, 1.0], [2.0]], ["ab", "cdef"]), 4 / math.log(2) / 6, 1e-9, 'bits_per_byte([[1, 1], [2]], ["ab", "cdef"])')


def check_bytes(task):
    """Bytes, not characters."""
    close(task.bits_per_byte([[3.0]], ["é漢"]), 3 / math.log(2) / 5, 1e-9, 'bits_per_byte([[3]], ["é漢"])')


def check_empty(task):
    """Nothing cannot be measured."""
    raises(ValueError, task.perplexity, [[]], call="perplexity([[]])")
    raises(ValueError, task.bits_per_byte, [[]], [""], call='bits_per_byte([[]], [""])')
