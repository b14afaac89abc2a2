"""A tokenizer of one regular expression."""



def words(text: str) -> list[str]:
    """The tokens of `text`, in order. Spaces are dropped, everything else is kept:

    - a number: digits, with dots or commas *between* digits ("3", "3.50", "1,200")
    - a word: letters of any alphabet, runs of them joined by one hyphen or apostrophe (' or ’) each
      ("didn't", "state-of-the-art", "café")
    - any other character on its own ("$", ".", "_")
    """
    raise NotImplementedError
