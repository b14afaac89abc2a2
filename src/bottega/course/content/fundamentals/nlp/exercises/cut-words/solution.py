import re

TOKEN = re.compile(r"\d+(?:[.,]\d+)*|[^\W\d_]+(?:[-'’][^\W\d_]+)*|\S")


def words(text: str) -> list[str]:
    return TOKEN.findall(text)
