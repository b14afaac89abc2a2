"""Cut a text into sentences."""


def sentences(text: str, abbreviations: set[str]) -> list[str]:
    """The sentences of `text`, in order, each with its mark and without spaces around it; [] for a text of spaces.

    Words are what stands between spaces; one space joins them again in the result. A sentence ends behind a word if
      - the word ends in . ! or ?, where one closing quote " or bracket ) may still follow the mark, and
      - the word, without an opening " or ( before it, in lower case, is not in `abbreviations` (which holds them in
        lower case with their full stop: "dr.", "e.g."), and
      - the next word, without an opening " or ( before it, begins with a capital letter or a digit.
    What stands behind the last such place is a sentence too, with or without a mark.
    """
    raise NotImplementedError
