def sentences(text: str, abbreviations: set[str]) -> list[str]:
    words = text.split()
    found, current = [], []
    for i, word in enumerate(words):
        current.append(word)
        if i + 1 == len(words):
            break
        bare = word[:-1] if word[-1] in '")' else word
        following = words[i + 1].lstrip('"(')
        if not bare.endswith((".", "!", "?")):
            continue
        if word.lstrip('"(').lower() in abbreviations:
            continue
        if following[:1].isupper() or following[:1].isdigit():
            found.append(" ".join(current))
            current = []
    if current:
        found.append(" ".join(current))
    return found
