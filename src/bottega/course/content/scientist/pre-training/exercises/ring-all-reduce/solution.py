def ring_all_reduce(gradients: list[list[float]]) -> tuple[list[list[float]], int]:
    n = len(gradients)
    pieces = [list(each) for each in gradients]
    sent = 0
    for step in range(n - 1):
        moving = [pieces[w][(w - step) % n] for w in range(n)]
        for w in range(n):
            at = (w - 1 - step) % n
            pieces[w][at] = pieces[w][at] + moving[w - 1]
        sent += 1
    for step in range(n - 1):
        moving = [pieces[w][(w + 1 - step) % n] for w in range(n)]
        for w in range(n):
            at = (w - step) % n
            pieces[w][at] = moving[w - 1]
        sent += 1
    return [[value for value in each] for each in pieces], sent
