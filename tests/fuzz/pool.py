"""Processes that try cases, and the watchdog that ends, counts and replaces those that hang or die."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO

from tests.fuzz.case import Answer, Case, Finding

PATIENCE, IDLE, WALL = 20.0, 10.0, 120.0  # seconds of computing, of doing nothing, and in all, for one case
DOING = "doing"  # in a worker's folder: what it has damaged for the case that it tries
START = 300.0  # for a worker, which trains some tiny runs first
MEMORY = 5 << 30  # bytes of address space beyond what a worker has when it is ready


class Worker:
    """One process in a world of its own."""

    def __init__(self, top: Path):
        self.top = top
        top.mkdir(parents=True, exist_ok=True)
        # OpenMP's threads would fight for the cores that both workers need.
        env = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONHASHSEED": "0"}
        here = str(Path(__file__).resolve().parent.parent.parent)
        env["PYTHONPATH"] = os.pathsep.join([here, *filter(None, [os.environ.get("PYTHONPATH")])])
        with (top / "worker.log").open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.fuzz", "--worker", str(top)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, env=env, start_new_session=True,
            )  # fmt: skip
        if self._answer(START, START, START * 2) is None:
            self.end()
            raise AssertionError(f"a worker did not start: {(top / 'worker.log').read_text(encoding='utf-8')[-2000:]}")

    def judge(self, case: Case, patience: float, idle: float) -> Answer | None:
        """How the case ended; None where the worker did not survive it, which `end` is then to be called for."""
        assert self.process.stdin is not None
        self.process.stdin.write(case.dump().encode() + b"\n")
        self.process.stdin.flush()
        text = self._answer(patience, idle, WALL)
        return Answer.load(case, text) if text else None

    def _answer(self, patience: float, idle: float, wall: float) -> str | None:
        """The next line from the worker; None when it takes too long or is gone."""
        out: IO[bytes] | None = self.process.stdout
        assert out is not None
        began, at_first = time.monotonic(), computed(self.process.pid)
        seen, changed = at_first, began
        while True:
            if select.select([out], [], [], 0.5)[0]:
                return out.readline().decode() or None
            now, spent = time.monotonic(), computed(self.process.pid)
            if spent > seen + 0.05:
                seen, changed = spent, now
            if spent - at_first > patience + 5 or now - changed > idle or now - began > wall:
                return None

    def end(self) -> str:
        """Kill the process with its children; says how it was found."""
        try:
            code = self.process.wait(0.5)  # it may be about to end
        except subprocess.TimeoutExpired:
            code = None
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                stream.close()
        return "did not end" if code is None else f"the process died ({code})"


def computed(leader: int) -> float:
    """CPU seconds of a process and its group so far; where the system does not tell, the clock's."""
    total, tick = 0, os.sysconf("SC_CLK_TCK")
    if not Path("/proc/self/stat").exists():
        return time.monotonic()
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            try:
                fields = (folder / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
            except OSError:
                continue  # it has just ended
            if fields[2] == str(leader):
                total += sum(map(int, fields[11:15]))
    return total / tick


class Pool:
    """Two workers, or so, and a queue."""

    def __init__(self, top: Path, size: int = 2):
        self.tops = [top / f"worker{k}" for k in range(size)]

    def run(
        self,
        cases: Iterable[Case],
        patience: float = PATIENCE,
        idle: float = IDLE,
        told: Callable[[Answer], None] = lambda answer: None,
    ) -> list[Answer]:
        """Every case tried, in the order in which they ended; `told` is called with each as it ends."""
        self.told = told
        queue, answers, problems = deque(cases), list[Answer](), list[BaseException]()
        threads = [
            threading.Thread(target=_guarded(problems, self._work), args=(top, queue, answers, patience, idle))
            for top in self.tops
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if problems:
            raise problems[0]
        return answers

    def _work(self, top: Path, queue: deque[Case], answers: list[Answer], patience: float, idle: float) -> None:
        worker = Worker(top)
        try:
            while queue:
                try:
                    case = queue.popleft()
                except IndexError:
                    return
                began = computed(worker.process.pid)
                answer = worker.judge(case, patience, idle)
                if answer is None:
                    seconds = computed(worker.process.pid) - began
                    how = worker.end()
                    form = "hang" if how == "did not end" else "died"
                    damage = (top / DOING).read_text(encoding="utf-8", errors="replace")
                    finding = Finding(form, f"{how}, {seconds:.0f} s of computing")
                    answer = Answer(case, None, max(0.0, seconds), damage, [finding])
                    worker = Worker(top)
                answers.append(answer)
                self.told(answer)
                if len(answers) % 250 == 0:
                    print(f"{len(answers)} cases tried, {len(queue)} left", file=sys.stderr, flush=True)
        finally:
            worker.end()


def _guarded(problems: list[BaseException], work: Callable[..., None]) -> Callable[..., None]:
    def done(*args: object) -> None:
        try:
            work(*args)
        except BaseException as error:
            problems.append(error)

    return done
