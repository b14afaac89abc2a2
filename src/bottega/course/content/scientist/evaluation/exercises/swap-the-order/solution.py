def judged(verdicts: list[tuple[str, str]]) -> tuple[float, float]:
    if not verdicts:
        raise ValueError("no pairs")
    scores = []
    for one, other in verdicts:
        a_won = one == "first"
        b_won = other == "first"
        scores.append(0.5 if a_won == b_won else float(a_won))
    both = [*(one for one, _ in verdicts), *(other for _, other in verdicts)]
    return sum(scores) / len(scores), both.count("first") / len(both) - 0.5
