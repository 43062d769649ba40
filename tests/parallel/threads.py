"""Ranks as threads of one process: what a `Team` does, without processes."""

from __future__ import annotations

import queue
import threading

import paddle


class ThreadTeam:
    """One rank's side of ranks that are threads."""

    def __init__(self, rank: int, size: int, meeting: Meeting):
        self.rank, self.size, self._meeting = rank, size, meeting
        self.leads = rank == 0

    def sum(self, x):
        return paddle.add_n(self._meeting.exchange(self.rank, x))

    def gather(self, x, axis):
        return paddle.concat(self._meeting.exchange(self.rank, x), axis=axis)

    def meet(self):
        self._meeting.exchange(self.rank, None)

    def hand_out(self, x):
        paddle.assign(self._meeting.exchange(self.rank, x)[0], x)

    def tell(self, message):
        for line in self._meeting.lines[1:]:
            line.put(message)

    def hear(self):
        return self._meeting.lines[self.rank].get(timeout=60)


class Meeting:
    """Where the threads wait for each other and see what each has brought."""

    def __init__(self, size: int):
        self._barrier = threading.Barrier(size, timeout=120)
        self._brought = [None] * size
        self.lines = [queue.Queue() for _ in range(size)]

    def exchange(self, rank: int, what) -> list:
        self._brought[rank] = what
        self._barrier.wait()
        seen = list(self._brought)
        self._barrier.wait()
        return seen

    def abort(self):
        self._barrier.abort()


def run_ranks(size: int, work) -> list:
    """What `work(team)` returns on each of `size` ranks; the first error is raised."""
    meeting, results, errors = Meeting(size), [None] * size, []

    def run(rank: int) -> None:
        try:
            with paddle.no_grad():
                results[rank] = work(ThreadTeam(rank, size, meeting))
        except Exception as error:
            errors.append(error)
            meeting.abort()

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise next((e for e in errors if not isinstance(e, threading.BrokenBarrierError)), errors[0])
    return results
