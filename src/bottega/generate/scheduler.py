"""Which tokens of which requests the next step computes.

One rule: *each request's computed tokens catch up with its tokens* (vLLM's). A prompt is a request that is far behind,
an answer one that is one token behind, a draft makes it a few more, and a prefix found in the cache a few less. The
rest is who goes first: by priority, then by time of coming. When blocks run out, the last of those that run gives
its blocks back and waits; what it had is computed again.
"""

from __future__ import annotations

from bisect import insort
from dataclasses import dataclass

from bottega.generate.blocks import BlockPool, block_hash, block_hashes
from bottega.generate.request import Request
from bottega.model.paged import BLOCK


@dataclass(frozen=True)
class Work:
    """The next `count` tokens of a request; `catches_up` if the newest is among them, so that one can be chosen."""

    request: Request
    count: int
    catches_up: bool


class Scheduler:
    """The requests that run, those that wait, and the blocks that they share.

    `max_batch` requests run at once; a step computes up to `step_tokens` tokens of prompts, beside the answers.
    """

    def __init__(self, pool: BlockPool, *, max_batch: int, step_tokens: int) -> None:
        self.pool, self.max_batch, self.step_tokens = pool, max_batch, step_tokens
        self.running: list[Request] = []
        self.waiting: list[Request] = []
        self.preemptions = 0

    def add(self, request: Request) -> None:
        """Let it wait."""
        request.status = "waiting"
        insort(self.waiting, request, key=lambda each: each.order)

    def remove(self, request: Request) -> None:
        """It has ended, or is not wanted any more; its blocks are free."""
        if request.status == "ended":
            return
        (self.running if request.status == "running" else self.waiting).remove(request)
        request.status = "ended"
        self._give_back(request)

    def schedule(self) -> list[Work]:
        """What the next step computes; requests are admitted, and preempted, on the way."""
        self._make_way()
        budget = self.step_tokens
        chosen: dict[Request, int] = {}
        for request in list(self.running):
            if request.status != "running":
                continue  # it lost its blocks to one before it
            count = request.missing if request.is_answering else min(request.missing, budget)
            if not count or not self._cover(request, count, chosen):
                continue
            chosen[request] = count
            budget -= 0 if request.is_answering else count
        while self.waiting and len(self.running) < self.max_batch and budget > 0:
            request = self.waiting[0]
            if not self._admit(request):
                break
            count = min(request.missing, budget)
            self._cover(request, count, chosen)
            chosen[request] = count
            budget -= count
        return [Work(request, count, count == request.missing) for request, count in chosen.items()]

    def advance(self, request: Request, computed: int) -> None:
        """The first `computed` tokens of the request are in the cache now; its full blocks become known."""
        before, request.computed = request.computed, computed
        done = computed // BLOCK
        if len(request.hashes) < done:
            request.hashes = block_hashes(request.root, request.tokens[: done * BLOCK], request.hashes)
        for place in range(request.learnt, done):
            self.pool.learn(request.blocks[place], request.hashes[place])
        request.learnt = done
        if request.tail is not None and before < request.tail[1] <= computed:
            self.pool.learn_beginning(request.blocks[request.tail[1] // BLOCK], request.tail[0])

    def check_integrity(self) -> None:
        """Raise AssertionError where something does not add up."""
        self.pool.check_integrity(request.blocks for request in self.running)
        assert all(request.status == "running" for request in self.running), "one that runs does not know it"
        assert all(request.status == "waiting" and not request.blocks for request in self.waiting), (
            "one waits with blocks"
        )
        assert len(self.running) <= self.max_batch, "too many run"
        for request in self.running:
            assert request.computed <= len(request.blocks) * BLOCK, "computed tokens lie nowhere"
            assert request.computed < len(request.tokens), "a request is ahead of itself"

    def _make_way(self) -> None:
        """Where all places are taken, one that waits and is more urgent takes that of the least urgent."""
        while self.waiting and len(self.running) >= self.max_batch:
            last = max(self.running, key=lambda each: each.order)
            if self.waiting[0].priority <= last.priority:
                return
            self._preempt(last)

    def _admit(self, request: Request) -> bool:
        """Let it run, if there are blocks for all of its tokens; those found in the cache it shares."""
        full = request.reusable // BLOCK
        if len(request.hashes) < full:
            request.hashes = block_hashes(request.root, request.tokens[: full * BLOCK], request.hashes)
        wanted = request.hashes[:full]
        found = self.pool.find(wanted)
        request.tail = _tail(request, full)
        tail = request.tail[0] if request.tail is not None and found == full else None
        source = None if tail is None else self.pool.beginning(tail)
        missing = wanted[found] if found < full else tail if source is None else None
        if missing is not None and self._is_under_way(missing):
            return False  # in a moment it can be shared
        revived = sum(self.pool.is_kept(hash_) for hash_ in wanted[:found])
        needed = -(-request.end // BLOCK) - found
        if self.pool.free - revived < needed:
            return False
        for hash_ in wanted[:found]:
            block = self.pool.share(hash_)
            assert block is not None
            request.blocks.append(block)
        request.computed, request.learnt = found * BLOCK, found
        if source is not None:
            block = self.pool.take()
            request.blocks.append(block)
            request.copy = None if block == source else (source, block)
            request.computed = request.reusable
        request.cached = max(request.cached, min(request.computed, request.prompt_length))
        self.waiting.pop(0)
        request.status = "running"
        insort(self.running, request, key=lambda each: each.order)
        return True

    def _is_under_way(self, hash_: bytes) -> bool:
        """Whether one that runs is computing the block of this content, or with this beginning."""
        return any(
            hash_ in request.hashes[request.learnt :]
            or (request.tail is not None and request.tail[0] == hash_ and request.computed < request.tail[1])
            for request in self.running
            if not request.is_answering
        )

    def _cover(self, request: Request, count: int, chosen: dict[Request, int]) -> bool:
        """Give the request blocks for its next tokens, if need be those of the last; False if that is itself."""
        while len(request.blocks) * BLOCK < request.computed + count:
            if self.pool.free:
                request.blocks.append(self.pool.take())
                continue
            last = self.running[-1]
            chosen.pop(last, None)
            self._preempt(last)
            if last is request:
                return False
        return True

    def _preempt(self, request: Request) -> None:
        """Take its blocks; it waits, and catches up again when it is its turn."""
        self.running.remove(request)
        self._give_back(request)
        if request.wants_prompt_scores:
            request.prompt_scores = []
        request.preemptions += 1
        self.preemptions += 1
        self.add(request)

    def _give_back(self, request: Request) -> None:
        for block in reversed(request.blocks):  # the end of a text is less likely to come again than its beginning
            self.pool.release(block)
        request.blocks, request.drafts, request.copy = [], [], None
        request.computed = request.learnt = 0


def _tail(request: Request, full: int) -> tuple[bytes, int] | None:
    """The hash of what is reusable beyond `full` blocks, and where that ends; None if nothing is."""
    end = request.reusable
    if end == full * BLOCK:
        return None
    return block_hash(request.hashes[full - 1] if full else request.root, request.tokens[full * BLOCK : end]), end
