"""How many tokens to draft for each request of a step, so that tokens come fastest; none where it does not pay.

A step over r rows of the target takes cost(r) seconds, a drafted token d seconds; both are running medians of what
was measured. A request whose drafts are accepted with probability a, one by one, gets 1 + a + … + a^k tokens from k
drafts (Leviathan et al. 2023, arXiv:2211.17192, equation 1). So the j-th draft of a request is worth a^j, the m drafts
worth most are always a first few of each request, and the best plan for a batch of B is the m that maximises

    (B + the sum of the m largest a^j) / (cost(B + m) + m · d)

(goodput: Liu et al. 2024, arXiv:2406.14066). Nothing here knows the time: seconds are given.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from statistics import median

import numpy as np

WINDOW = 31  # measurements of which the median is taken
ENOUGH = 3  # measurements that make a plain step's cost known
REFRESH = 128  # speculative steps of a batch size after which a plain one is measured again
DECAY = 0.95  # of what was seen of a request's drafts, per step; it fades when something new is seen
PRIOR_WEIGHT = 2.0  # drafts that the rate of earlier requests counts for in a new one
PROBE, SLOWEST_PROBE = 8, 64  # steps without a draft until one is tried; doubles while none pays
MARGIN = 1.02  # speculation must promise so much more, for estimates are noisy


class CostCurve:
    """Seconds of a step by its number of rows, measured where it was, interpolated between."""

    def __init__(self) -> None:
        self._seen: dict[int, deque[float]] = {}
        self._medians: dict[int, float] = {}  # in the order of the sizes

    def observe(self, rows: int, seconds: float) -> None:
        """One step of so many rows took so long."""
        if rows not in self._seen:
            self._seen[rows] = deque(maxlen=WINDOW)
            self._medians = {size: self._medians.get(size, 0.0) for size in sorted(self._seen)}
        self._seen[rows].append(seconds)
        self._medians[rows] = median(self._seen[rows])

    def count(self, rows: int) -> int:
        """Measurements at exactly so many rows."""
        return len(self._seen[rows]) if rows in self._seen else 0

    def seconds(self, rows: np.ndarray) -> np.ndarray:
        """Estimates; beyond the largest size measured no more than there, so that it is tried once."""
        return np.interp(rows, list(self._medians), list(self._medians.values()))


@dataclass
class Speculation:
    """What speculation did for one request."""

    proposed: int = 0
    accepted: int = 0
    steps: int = 0
    """Each gave the accepted tokens and one more."""
    seconds: float = 0.0
    """Time of the steps that were measured, drafting included."""
    plain_seconds: float = 0.0
    """Estimated time of as many tokens without speculation."""

    @property
    def acceptance(self) -> float | None:
        """Share of the proposed tokens that stood."""
        return self.accepted / self.proposed if self.proposed else None

    @property
    def gain(self) -> float | None:
        """How many times faster its tokens came than without speculation, by the measured cost of plain steps."""
        return self.plain_seconds / self.seconds if self.seconds and self.plain_seconds else None


@dataclass
class _Request:
    """What the controller knows of one request."""

    record: Speculation = field(default_factory=Speculation)
    tried: float = 0.0
    stood: float = 0.0
    idle: int = 0
    wait: int = PROBE
    probes: int = 0
    steady: bool = False  # it drafted in its last step


@dataclass(frozen=True)
class Plan:
    """How many drafts each request may have, and what the estimates promise for it.

    `reason` is "estimate" where the lengths are the best by the estimates; "measure" where no request drafts because
    the cost of a plain step must be known; "probe" where one request more drafts, to see whether it would pay now.
    """

    lengths: dict[Hashable, int]
    gain: float = 1.0
    reason: str = "estimate"


@dataclass(frozen=True)
class Outcome:
    """What became of one request in a step: drafts proposed, and how many of them stood (one more token came)."""

    proposed: int
    accepted: int


class Controller:
    """Chooses the lengths of drafts for an engine's steps, and learns from each step."""

    def __init__(self, max_length: int = 8) -> None:
        self.max_length = max_length
        self.steps = CostCurve()
        self._draft_seconds: deque[float] = deque(maxlen=WINDOW)
        self._requests: dict[Hashable, _Request] = {}
        self._past: tuple[float, float] = PRIOR_WEIGHT, PRIOR_WEIGHT  # (stood, tried) of all requests, decayed
        self._since_plain: dict[int, int] = defaultdict(int)
        self._since_probe = 0

    def plan(self, limits: Mapping[Hashable, int]) -> Plan:
        """The lengths for a step of the requests in `limits`, which says how many drafts each has room for."""
        count = len(limits)
        plain = dict.fromkeys(limits, 0)
        if self.steps.count(count) < ENOUGH or self._since_plain[count] > REFRESH:
            return Plan(plain, reason="measure")
        room = {request: min(self.max_length, max(0, limit)) for request, limit in limits.items()}
        lengths, gain = self._best(room)
        for request, length in lengths.items():
            if length and request in self._requests:
                self._requests[request].wait = PROBE
        silent = [request for request in room if room[request] and not lengths[request]]
        if (probing := self._due(silent)) is None:
            return Plan(lengths, gain)
        return Plan({**lengths, probing: self._probe(probing, room[probing], len(room))}, gain, "probe")

    def _best(self, room: Mapping[Hashable, int]) -> tuple[dict[Hashable, int], float]:
        """The lengths within `room` that give most tokens per second, and how many times those without drafts."""
        count, most = len(room), max(room.values(), default=0)
        places = np.arange(1, most + 1)[:, None]
        worth = np.array([self.rate(request) for request in room]) ** places  # (most, count)
        worth[places > np.array(list(room.values()))] = -1.0
        # Stable, and earlier drafts stand first: of equals, the j-th comes before the next of the same request.
        order = np.argsort(-worth, axis=None, kind="stable")[: sum(room.values())]
        tokens = count + np.concatenate(([0.0], worth.ravel()[order].cumsum()))
        speed = tokens / self.seconds(count, np.arange(len(tokens)))
        drafts = int(speed.argmax())
        if speed[drafts] <= MARGIN * speed[0]:
            drafts = 0
        lengths = np.bincount(order[:drafts] % count, minlength=count).tolist()
        return dict(zip(room, lengths, strict=True)), float(speed[drafts] / speed[0])

    def rate(self, request: Hashable) -> float:
        """Probability that a draft of the request stands; a new one is expected to be like those before it."""
        known = self._requests.get(request)
        stood, tried = (known.stood, known.tried) if known else (0.0, 0.0)
        return (stood + PRIOR_WEIGHT * self._past[0] / self._past[1]) / (tried + PRIOR_WEIGHT)

    def seconds(self, requests: int, drafts: np.ndarray) -> np.ndarray:
        """Estimated time of a step of so many requests with so many drafts among them."""
        each = median(self._draft_seconds) if self._draft_seconds else 0.0
        return self.steps.seconds(requests + drafts) + drafts * each

    def observe(
        self, outcomes: Mapping[Hashable, Outcome], step_seconds: float | None, draft_seconds: float = 0.0
    ) -> None:
        """Learn from a step in which every request of `outcomes` had one row and one for each draft.

        `step_seconds` is None for a step that also ran parts of prompts: its time is not that of these rows.
        """
        self._since_probe += 1
        states = {request: self._requests.setdefault(request, _Request()) for request in outcomes}
        count, drafts = len(outcomes), sum(outcome.proposed for outcome in outcomes.values())
        # A draft model that was silent has tokens to catch up with first, which drafting on does not cost.
        if drafts and all(states[name].steady for name, outcome in outcomes.items() if outcome.proposed):
            self._draft_seconds.append(draft_seconds / drafts)
        for request, outcome in outcomes.items():
            self._learn(states[request], outcome)
        if step_seconds is None:
            return
        self.steps.observe(count + drafts, step_seconds)
        self._since_plain[count] = self._since_plain[count] + 1 if drafts else 0
        if self.steps.count(count):
            plain = float(self.steps.seconds(np.array([count]))[0])
            for request, outcome in outcomes.items():
                states[request].record.seconds += step_seconds + draft_seconds
                states[request].record.plain_seconds += plain * (outcome.accepted + 1)

    def record(self, request: Hashable) -> Speculation:
        """What speculation has done for the request; the same object is kept up until `forget`."""
        return self._requests.setdefault(request, _Request()).record

    def forget(self, request: Hashable) -> None:
        """The request has ended."""
        self._requests.pop(request, None)

    def _learn(self, state: _Request, outcome: Outcome) -> None:
        state.record.steps += 1
        state.record.proposed += outcome.proposed
        state.record.accepted += outcome.accepted
        state.steady = outcome.proposed > 0
        if not outcome.proposed:
            state.idle += 1
            return
        # Behind a draft that falls, nothing was learnt of the others.
        stood, tried = outcome.accepted, min(outcome.accepted + 1, outcome.proposed)
        faded = DECAY ** (state.idle + 1)
        state.stood, state.tried = faded * state.stood + stood, faded * state.tried + tried
        self._past = DECAY * self._past[0] + stood, DECAY * self._past[1] + tried
        if state.idle:
            state.wait = min(2 * state.wait, SLOWEST_PROBE)  # until the estimates choose it again
        state.idle = 0

    def _due(self, silent: Iterable[Hashable]) -> Hashable | None:
        """Of the requests without drafts the one most overdue for a trial, where one is due."""
        if self._since_probe < PROBE:  # one at a time, or a large batch would always be trying
            return None
        states = [(request, self._requests[request]) for request in silent if request in self._requests]
        due = [(state.idle - state.wait, request) for request, state in states if state.idle >= state.wait]
        return max(due, key=lambda entry: entry[0])[1] if due else None

    def _probe(self, request: Hashable, room: int, count: int) -> int:
        """How many drafts are tried: 1, 2, 1, 4, 1, 2, 1, 8 …, but 1 where more would not pay if all stood."""
        state, self._since_probe = self._requests[request], 0
        state.probes += 1
        length = min(state.probes & -state.probes, room)
        plain, trial = self.seconds(count, np.array([0, length]))
        return length if (count + length) * plain > count * trial else 1
