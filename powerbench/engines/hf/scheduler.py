"""Which requests run, in which slots, and what a step computes for them.

A request starts in the free slot that spares it the most computation and copying. One whose prompt another
request is just computing waits for that: replicates of a problem share one prefill, and problems share
their few-shot examples or system prompt.

A request is started when memory has room for what it knows, and some to grow for all that run. Where memory
runs out nevertheless, what can be computed again gives way: rows that nobody needs, then those of requests
that are answered, then the youngest request, which starts again later. The oldest one always goes on.
"""

from collections import deque
from collections.abc import Iterator, Sequence

from powerbench.engines.hf.attention_batches import Chunk
from powerbench.engines.hf.prefix_cache import PrefixCache, common_prefix
from powerbench.engines.hf.request import EngineRequest, Status
from powerbench.types import Key

PASSED_OVER = 8
"""Where memory lacks for so many waiting requests, the others are not looked at in this step."""

GROWTH = 256
"""Tokens that every running request should be able to decode before another one is started."""

MIN_SHARED_PREFILL = 8
"""A request waits a step for another's prefill if that spares it at least this many tokens of its own."""


class Scheduler:
    """Gives requests their slots, and steps their work.

    max_prefill_tokens: at most this many prompt tokens are computed in one step.
    """

    def __init__(self, prefix_cache: PrefixCache, max_prefill_tokens: int) -> None:
        self.prefix_cache, self.max_prefill_tokens = prefix_cache, max_prefill_tokens
        self.waiting: deque[EngineRequest] = deque()
        self.count = 0
        """Of requests so far."""
        self.full = False
        """Whether a request had to give way since one was last over: no other is started meanwhile, lest they
        push each other out and none goes on."""
        self.by_slot: dict[int, EngineRequest] = {}
        """The request that runs in a slot, or that finished there and is not yet withdrawn."""

    @property
    def prefilling(self) -> list[int]:
        """The slots whose known tokens are still being computed, ascending."""
        return self._slots_of(Status.PREFILLING)

    @property
    def decoding(self) -> list[int]:
        """The slots that decode, ascending."""
        return self._slots_of(Status.DECODING)

    def reusable(self, chain: int) -> list[int]:
        """The slots where this chain's requests finished, in that order: it may go on from any of them."""
        return [
            slot
            for slot, request in self.by_slot.items()
            if request.chain == chain and request.status is Status.FINISHED
        ]

    def add(self, request: EngineRequest) -> None:
        """Queue a request."""
        extend = request.extend
        if extend.keep < len(extend.response):  # else the response goes on where it is
            current = request.prompt + extend.response
            name, slots = (request.chain, extend.sequence), self.reusable(request.chain)
            self.prefix_cache.retain(name, slots, current, request.long)
        request.number = self.count
        self.count += 1
        self.waiting.append(request)

    def withdraw(self, chain: int, key: Key | None) -> list[EngineRequest]:
        """Forget a request, or all of a chain's and what is retained for it; returns those not answered."""
        waiting = [each for each in self.waiting if each.is_named(chain, key)]
        self.waiting = deque(each for each in self.waiting if not each.is_named(chain, key))
        named = [each for each in self.by_slot.values() if each.is_named(chain, key)]
        for request in named:
            del self.by_slot[request.slot]
        self.full = False
        if key is None:
            self.prefix_cache.release(chain)
        return waiting + [request for request in named if request.running]

    def finish(self, request: EngineRequest, row: Sequence[int]) -> None:
        """The request is answered; row: the tokens that its slot now holds."""
        self.prefix_cache.keep(request.slot, row)
        request.status, self.full = Status.FINISHED, False
        self.by_slot[request.slot] = self.by_slot.pop(request.slot)  # `reusable` goes by this order

    # -- slots ----------------------------------------------------------------------------------

    def schedule(self) -> list[EngineRequest]:
        """Start waiting requests while there are free slots; returns those that were started."""
        started = self.schedule_in_place()
        postponed: deque[EngineRequest] = deque()
        passed_over = 0
        while self.waiting and passed_over < PASSED_OVER and (free := self._free()):
            request = self.waiting.popleft()
            unused = [slot for slot in free if slot not in self.by_slot]
            slots = unused or sorted(self.reusable(request.chain)) or free
            if self.worth_prefix_wait(request):
                postponed.append(request)
            elif self._start(request, slots):
                started.append(request)
            else:
                postponed.append(request)
                passed_over += 1
        self.waiting.extendleft(reversed(postponed))
        return started

    def schedule_in_place(self) -> list[EngineRequest]:
        """Start what only continues a response in the slot where that ends: of particles with one ancestor the
        first, for the others have to copy. All others come later, lest they take that slot."""
        if not self._slots_of(Status.FINISHED):
            return []
        waiting, self.waiting = self.waiting, deque()
        started = []
        for request in waiting:
            if (slots := self._ends_of(request)) and self._start(request, slots):
                started.append(request)
            else:
                self.waiting.append(request)
        return started

    def worth_prefix_wait(self, request: EngineRequest) -> bool:
        """Whether a row now being computed will hold more of what the request knows than any does yet."""
        alike = [
            self.by_slot[slot]
            for slot in self.prefilling
            if self.by_slot[slot].long == request.long
        ]
        soon = max((common_prefix(other.known, request.known) for other in alike), default=0)
        if soon == 0:
            return False
        now = self.prefix_cache.longest_prefix(request.known, request.long)
        return soon - now >= MIN_SHARED_PREFILL

    def _start(self, request: EngineRequest, free: Sequence[int]) -> bool:
        """Give a request one of these slots; False if memory lacks."""
        if not self._has_room(request):
            return False
        name, known = (request.chain, request.extend.sequence), request.known
        slot = self.prefix_cache.allocate(
            name, known, request.long, free, self.reusable(request.chain)
        )
        held = len(self.prefix_cache[slot].tokens)
        answered = self.by_slot.pop(slot, None)
        if not self._reserve(slot, held, len(known)):
            if answered is not None:
                self.by_slot[slot] = answered
            return False
        self.by_slot[slot], request.slot, request.reserved = request, slot, len(known)
        request.prefilled, request.decoded = len(known) - 1 - held, 0
        request.status = Status.PREFILLING if request.prefilled else Status.DECODING
        return True

    def _ends_of(self, request: EngineRequest) -> list[int]:
        """The free slot, if any, where a response of this chain ends that the request only continues."""
        if request.extend.keep < len(request.extend.response):
            return []
        slots, body = self.reusable(request.chain), list(request.known[:-1])
        return [slot for slot in slots if self.prefix_cache[slot].holds(body, request.long)][:1]

    def _free(self) -> list[int]:
        every = range(self.prefix_cache.max_num_seqs)
        return [
            slot
            for slot in every
            if slot not in self.by_slot or self.by_slot[slot].status is Status.FINISHED
        ]

    def _slots_of(self, status: Status) -> list[int]:
        return sorted(slot for slot, request in self.by_slot.items() if request.status is status)

    # -- memory ---------------------------------------------------------------------------------

    def make_room(self, steps: int) -> list[int]:
        """See to it that every request that decodes can do so for this number of steps, the oldest first;
        returns the slots of those that had to give way, and wait to start again."""
        lost: list[int] = []
        if self._decodes_later():
            return lost
        for request in sorted(self._running(), key=lambda each: each.number):
            if request.status is not Status.DECODING:  # it has room for what it knows; or gave way
                continue
            at = len(request.known) - 1 + request.decoded
            stop = min(at + steps, len(request.prompt) + request.extend.until)
            while stop > request.reserved:
                if self._reserve(request.slot, max(at, request.reserved), stop):
                    request.reserved = stop
                else:
                    youngest = max(self._running(), key=lambda each: each.number)
                    lost.append(self._preempt(youngest))
                    if youngest is request:
                        break
        return lost

    def _preempt(self, request: EngineRequest) -> int:
        """Put a request back, to be decoded again from its start; returns the slot that it had."""
        slot, request.slot, self.full = request.slot, -1, True
        del self.by_slot[slot]
        self.prefix_cache.keep(slot, self.prefix_cache[slot].tokens)
        request.preempted += request.decoded
        request.status, request.decoded, request.reserved = Status.WAITING, 0, 0
        self.waiting.appendleft(request)
        return slot

    def _reserve(self, slot: int, start: int, stop: int) -> bool:
        """Have these positions of a slot made writable, rows that do not run giving way."""
        while not self.prefix_cache.cache.reserve(slot, start, stop):
            unneeded, answered = self._droppable(slot)
            if not (self.prefix_cache.drop(unneeded) or self.prefix_cache.drop(answered)):
                return False
        return True

    def _droppable(self, slot: int) -> tuple[list[int], list[int]]:
        """The rows but this one that nobody needs, and those that a chain may go on from."""
        kept = {*self.prefix_cache.retained.values()}
        idle = [
            row
            for row in range(len(self.prefix_cache.rows))
            if row != slot and not (row in self.by_slot and self.by_slot[row].running)
        ]
        needed = {row for row in idle if row in kept or row in self.by_slot}
        return [row for row in idle if row not in needed], sorted(needed)

    def _has_room(self, request: EngineRequest) -> bool:
        """Whether memory has room for what a request knows, and for all that run to grow."""
        cache, running = self.prefix_cache.cache, len(self._running())
        need = len(request.known) + GROWTH * (running + 1)
        if running == 0 or (cache.spare() >= need and not self.full):
            return True
        if self.full:
            return False
        need -= cache.shared_part(self._held_of(request))
        while cache.spare() < need:
            if not self.prefix_cache.drop(self._droppable(-1)[0]):
                return False
        return True

    def _held_of(self, request: EngineRequest) -> int:
        """How many of the tokens that a request knows its chain's own rows hold."""
        name = request.chain, request.extend.sequence
        own = [*self.reusable(request.chain), *self.prefix_cache.retained_rows(name)]
        rows = (self.prefix_cache[row] for row in own)
        return max((row.common(request.known, request.long) for row in rows), default=0)

    def _running(self) -> list[EngineRequest]:
        return [each for each in self.by_slot.values() if each.running]

    # -- work -----------------------------------------------------------------------------------

    def prefill_batches(self) -> Iterator[tuple[bool, list[Chunk]]]:
        """What to compute of prompts in this step: for short and long rope factors, the chunks of one pass.

        The cache's rows count as filled once a chunk is handed out; a request whose chunk is its last one
        decodes from then on.
        """
        budget = self.max_prefill_tokens
        for long in (False, True):
            chunks = []
            for slot in self.prefilling:
                request, row = self.by_slot[slot], self.prefix_cache[slot]
                if request.long == long and budget > 0:
                    start, last = len(row.tokens), len(request.known) - 1
                    tokens = request.known[start : min(start + budget, last)]
                    budget -= len(tokens)
                    chunks.append(Chunk(slot, start, tokens))
                    row.tokens += tokens
                    if len(row.tokens) == last:
                        request.status = Status.DECODING
            if chunks:
                yield long, chunks

    def decode_batches(self) -> Iterator[tuple[bool, list[EngineRequest]]]:
        """Who decodes in this step: for short and long rope factors, the requests by slot, ascending."""
        if self._decodes_later():
            return
        decoding = self.decoding
        for long in (False, True):
            requests = [self.by_slot[slot] for slot in decoding if self.by_slot[slot].long == long]
            if requests:
                yield long, requests

    def _decodes_later(self) -> bool:
        """Rather a full batch soon than a thin one now."""
        return len(self.decoding) < len(self.prefilling)
