"""Many small answers over HTTP at once: one thread, connections that are kept, and a bound on everything.

Thousands of exporters are asked in every turn, so a question may cost little more than its system calls: a client
library with a thread for each costs forty times as much. What is asked here is only ever a plain GET without side
effects, which is also why a kept connection that turns out to be closed is replaced without asking anybody.
"""

from __future__ import annotations

import resource
import selectors
import socket
import ssl
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from itertools import islice, takewhile
from typing import TypeAlias

from healer.adapters.http.exchange import Address, Exchange, Place, Question, Unanswered
from healer.errors import Unavailable

_BUFFER_BYTES = 1 << 18
_MOST_HELD_BYTES = 512 << 20  # of all answers that are under way
_LARGE_BYTES = 1 << 20
_FRESH = 256  # questions that are asked at once
_FRESH_S = 0.5  # who has not answered by then waits beside the others, and no longer in front of them
_LOOK_S = 0.02  # how often a name that is being resolved is looked after
_RESOLVERS = 16
_OTHER_FILES = 256  # descriptors for the rest of the process
_FEWEST_OPEN = 16

_Kept: TypeAlias = dict[Place, list[socket.socket]]
_Answered: TypeAlias = tuple[int, bytes | Unavailable]


class NotAsked(Unavailable):
    """There was no time left for the question."""


class Fetcher:
    """Owns the connections, and what is known of names. For one thread.

    Args:
        timeout_s: for each question, from its beginning to the end of its answer.
        limit_bytes: of each answer, packed or not.
    """

    def __init__(self, *, timeout_s: float, limit_bytes: int) -> None:
        self.timeout_s = timeout_s
        self.limit_bytes = limit_bytes
        self.kept: _Kept = {}
        self.addresses: dict[Place, Sequence[Address]] = {}
        self._resolver = ThreadPoolExecutor(_RESOLVERS, thread_name_prefix="resolve")

    def close(self) -> None:
        _close(self.kept)
        self._resolver.shutdown(wait=False, cancel_futures=True)

    def fetch(self, questions: Sequence[Question], *, within_s: float) -> Iterator[_Answered]:
        """The number of each question and its answer's body, as they come in. Every question is answered in the end.

        Args:
            within_s: for all of them. The time that the caller spends between two answers counts nowhere.
        """
        earlier, self.kept = self.kept, {}
        fetching = _Fetching(self, questions, earlier, within_s=within_s)
        try:
            yield from fetching.answers()
        finally:
            fetching.give_up()
            _close(earlier)  # of those who are not asked any more

    def resolve(self, place: Place) -> Future[Sequence[Address]]:
        return self._resolver.submit(_resolved, place)


class _Fetching:
    """One call of `fetch`."""

    def __init__(self, owner: Fetcher, questions: Sequence[Question], earlier: _Kept, *, within_s: float) -> None:
        self._owner = owner
        self._earlier = earlier
        self._waiting = deque(enumerate(questions))
        self._within_s = within_s
        room = _descriptors(len(questions))
        # Who cannot all have a connection share: those who are asked, those who have been, and those who have to wait.
        self._most_open = self._most_kept = room if room >= len(questions) else room // 3
        self._n_kept = 0
        self._caller_s = 0.0
        self._end = self._now() + within_s
        self._fresh: dict[Exchange, float] = {}  # since when; the oldest comes first in both
        self._slow: dict[Exchange, float] = {}
        self._resolving: dict[Exchange, Future[Sequence[Address]]] = {}
        self._answered: deque[_Answered] = deque()
        self._selector = selectors.DefaultSelector()
        self._buffer = memoryview(bytearray(_BUFFER_BYTES))

    def answers(self) -> Iterator[_Answered]:
        while self._waiting or self._fresh or self._slow:
            self._start()
            for exchange in self._wait():
                self._advance(exchange)
                # At once: an answer that is gone before the next one comes leaves it its memory.
                yield from self._handed_over()
            self._look_at_names()
            self._look_at_the_time()
            yield from self._handed_over()

    def give_up(self) -> None:
        for exchange in (*self._fresh, *self._slow):
            exchange.give_up()
        self._selector.close()

    def _handed_over(self) -> Iterator[_Answered]:
        while self._answered:
            before = time.monotonic()
            yield self._answered.popleft()
            self._caller_s += time.monotonic() - before

    def _now(self) -> float:
        return time.monotonic() - self._caller_s

    def _start(self) -> None:
        now = self._now()
        while self._waiting and len(self._fresh) < _FRESH and len(self._fresh) + len(self._slow) < self._most_open:
            number, question = self._waiting.popleft()
            deadline = min(now + self._owner.timeout_s, self._end)
            exchange = Exchange(number, question, deadline=deadline, limit_bytes=self._owner.limit_bytes)
            self._fresh[exchange] = now
            if kept := self._taken(question.place):
                exchange.reuse(kept)
                self._advance(exchange)
            else:
                self._connect(exchange)

    def _taken(self, place: Place) -> socket.socket | None:
        """A kept connection on which nothing has come since: neither its end nor more than was asked."""
        for kept in (self._owner.kept, self._earlier):
            connections = kept.get(place)
            while connections:
                self._n_kept -= kept is self._owner.kept
                connection = connections.pop()
                if isinstance(connection, ssl.SSLSocket) or _is_quiet(connection):
                    return connection
                connection.close()
        return None

    def _connect(self, exchange: Exchange) -> None:
        place = exchange.question.place
        addresses = self._owner.addresses.get(place) or _numeric(place)
        if not addresses:
            self._resolving[exchange] = self._owner.resolve(place)
            return
        try:
            exchange.connect(addresses)
        except OSError as error:
            self._failed(exchange, error)
        else:
            self._watch(exchange)

    def _wait(self) -> list[Exchange]:
        """For the first thing to happen; to whom it did."""
        now = self._now()
        until = [exchange.deadline for exchange in (*_first(self._fresh), *_first(self._slow))]
        if self._waiting:
            until += [self._fresh[exchange] + _FRESH_S for exchange in _first(self._fresh)]
        if self._resolving:
            until.append(now + _LOOK_S)
        if self._answered or not until:
            until = [now]
        return [key.data for key, _ in self._selector.select(max(min(until) - now, 0.0))]

    def _advance(self, exchange: Exchange) -> None:
        try:
            if exchange.advance(self._buffer):
                self._finish(exchange, exchange.body())
            elif exchange.held_bytes > _LARGE_BYTES and self._held_bytes() > _MOST_HELD_BYTES:
                text = "answers with so much that, with the others at the same time, there is no memory for it"
                self._finish(exchange, Unavailable(exchange.question.component, text))
            else:
                self._watch(exchange)
        except OSError as error:
            self._failed(exchange, error)
        except Unavailable as error:
            self._finish(exchange, error)

    def _held_bytes(self) -> int:
        return sum(exchange.held_bytes for exchange in (*self._fresh, *self._slow))

    def _watch(self, exchange: Exchange) -> None:
        assert exchange.socket is not None
        if exchange.watched == exchange.wants:
            return
        change = self._selector.modify if exchange.watched else self._selector.register
        change(exchange.socket.fileno(), exchange.wants, exchange)
        exchange.watched = exchange.wants

    def _unwatch(self, exchange: Exchange) -> None:
        if exchange.watched and exchange.socket is not None:
            self._selector.unregister(exchange.socket.fileno())
        exchange.watched = 0

    def _failed(self, exchange: Exchange, error: OSError) -> None:
        """Try the next way of reaching it, if there is one."""
        self._unwatch(exchange)
        if exchange.reused:  # that the other end has closed it meanwhile says nothing
            exchange.give_up()
            self._connect(exchange)
            return
        try:
            if exchange.dial_next():
                self._watch(exchange)
                return
        except OSError as another:
            self._failed(exchange, another)
            return
        self._finish(exchange, Unavailable(exchange.question.component, _cause(error)))

    def _finish(self, exchange: Exchange, answer: bytes | Unavailable) -> None:
        self._unwatch(exchange)
        place = exchange.question.place
        if isinstance(answer, Unavailable):
            self._owner.addresses.pop(place, None)  # it may have moved
        if exchange.socket is not None and exchange.keeps and self._n_kept < self._most_kept:
            self._owner.kept.setdefault(place, []).append(exchange.socket)
            self._n_kept += 1
        else:
            exchange.give_up()
        self._fresh.pop(exchange, None)
        self._slow.pop(exchange, None)
        self._answered.append((exchange.number, answer))

    def _look_at_names(self) -> None:
        for exchange, future in [(each, future) for each, future in self._resolving.items() if future.done()]:
            del self._resolving[exchange]
            try:
                self._owner.addresses[exchange.question.place] = future.result()
            except (OSError, UnicodeError) as error:
                cause = _cause(error) if isinstance(error, OSError) else "its name is not one; correct it"
                self._finish(exchange, Unavailable(exchange.question.component, cause))
            else:
                self._connect(exchange)

    def _look_at_the_time(self) -> None:
        now = self._now()
        for exchange in _while(self._fresh, lambda each: self._fresh[each] + _FRESH_S <= now):
            self._slow[exchange] = self._fresh.pop(exchange)
        for waiting in (self._slow, self._fresh):
            for exchange in _while(waiting, lambda each: each.deadline <= now):
                self._resolving.pop(exchange, None)
                self._finish(exchange, Unavailable(exchange.question.component, self._too_slow(exchange)))
        while self._waiting and now >= self._end:
            number, question = self._waiting.popleft()
            text = f"was not asked: others have taken all of the {self._within_s:g} s that everybody has"
            self._answered.append((number, NotAsked(question.component, text)))

    def _too_slow(self, exchange: Exchange) -> str:
        cut = exchange.deadline == self._end
        within = f"the rest of the {self._within_s:g} s that everybody has" if cut else f"{self._owner.timeout_s:g} s"
        return f"gave no whole answer within {within}; check its load, or raise the timeout"


def _first(exchanges: dict[Exchange, float]) -> list[Exchange]:
    return list(islice(exchanges, 1))


def _while(exchanges: dict[Exchange, float], condition: Callable[[Exchange], bool]) -> list[Exchange]:
    return list(takewhile(condition, exchanges))


def _is_quiet(connection: socket.socket) -> bool:
    try:
        connection.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _numeric(place: Place) -> Sequence[Address]:
    """The address that the place has for a name; nothing if it is a name."""
    try:
        return _resolved(place, flags=socket.AI_NUMERICHOST)
    except (OSError, UnicodeError):
        return ()


def _resolved(place: Place, *, flags: int = 0) -> Sequence[Address]:
    """Raises OSError, UnicodeError."""
    _, host, port = place
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)
    return [(family, address) for family, _, _, _, address in found]


def _descriptors(questions: int) -> int:
    """How many connections there may be. The soft limit on files is for programs that use select(): ours is raised."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = questions + _OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return needed if soft == resource.RLIM_INFINITY else max(soft - _OTHER_FILES, _FEWEST_OPEN)


def _cause(error: OSError) -> str:
    """Without what an error's own text may quote."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"has a certificate that is not trusted ({error.verify_message}); check it and the trusted authorities"
    if isinstance(error, ssl.SSLError):
        return "the TLS handshake failed; check that it speaks TLS there"
    if isinstance(error, Unanswered):
        return "closed the connection without an answer; check that it speaks HTTP there"
    return f"cannot be reached: {error.strerror or type(error).__name__}; check the address and the network"


def _close(kept: _Kept) -> None:
    for connections in kept.values():
        for connection in connections:
            connection.close()
    kept.clear()
