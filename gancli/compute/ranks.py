"""Runs with several processes (ranks): torchrun's environment, the process group, and handling of failed ranks.

torchrun gives every process its rank in environment variables, and a store that all can reach. The ranks write
heartbeats to the store, and the first that fails writes its error, so that one line is printed, with the right rank.
"""

from __future__ import annotations

import os
import platform
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gancli.errors import DeviceError, RankError, RunError

if TYPE_CHECKING:
    from gancli.compute.dist import World

BEAT = 0.5  # seconds between heartbeats
PATIENCE = 2.5  # seconds in which a live rank writes several heartbeats, and a failing one its error
GRACE = 10.0  # seconds after another rank's failure after which a rank is ended
MEET = 600.0  # seconds for all ranks to appear

Say = Callable[[str], None]


@dataclass(frozen=True)
class Place:
    """A process's rank and the number of ranks, over all machines and on its own."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1


def several() -> bool:
    """Whether this process was started as one of several."""
    return os.environ.get("WORLD_SIZE", "1").strip() not in ("", "1")


def place() -> Place:
    """This process's place. Raises DeviceError if the environment variables are inconsistent."""
    if not several():
        return Place()
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    found = [os.environ.get(name, "") for name in names]
    # Launchers other than torchrun may omit the local values.
    found[2:] = [found[2] or found[0], found[3] or found[1]]
    good = all(word.isdigit() for word in found) and int(found[0]) < int(found[1])
    if not good or not os.environ.get("MASTER_ADDR") or not os.environ.get("MASTER_PORT"):
        raise DeviceError(
            f"WORLD_SIZE={os.environ['WORLD_SIZE']} means one process of several, but RANK, MASTER_ADDR or MASTER_PORT"
            " is missing or wrong: start with torchrun --nproc-per-node=N -m gancli, or unset WORLD_SIZE"
        )
    return Place(*map(int, found))


def job() -> str | None:
    """A unique name of this launch of torchrun, unchanged when it restarts its ranks; None without torchrun.

    It consists of the run id and, since that may be reused, of the launching process on this machine.
    """
    name = os.environ.get("TORCHELASTIC_RUN_ID")
    if name is None:
        return None
    parent = os.getppid()
    try:
        born = Path(f"/proc/{parent}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19]
    except (OSError, IndexError):  # this system has no /proc
        born = "?"
    return f"{name} {platform.node()} {parent} {born}"


# -- the process as a whole --------------------------------------------------------------------------------------------


def as_one(work: Callable[[Say], int]) -> int:
    """Run `work`, this rank's part of a command, and return its exit code; only rank 0 prints, and errors only once.

    work: gets the function that reports an error.
    """
    global _watch
    stderr = sys.stderr
    try:
        _watch = Watch(place(), lambda text: print(f"gan: {text}", file=stderr, flush=True))
    except DeviceError as error:
        print(f"gan: {error}", file=stderr)
        return 2
    with ExitStack() as stack:
        if _watch.place.rank:
            quiet = stack.enter_context(Path(os.devnull).open("w", encoding="utf-8"))
            stack.enter_context(redirect_stdout(quiet))
            stack.enter_context(redirect_stderr(quiet))
        code = work(_watch.report)
        _watch.leave(whole=code == 0)
    return code


def join(device: Mapping[str, Any]) -> None:
    """Create the process group of all ranks, with gloo or nccl by the `device` section; with one rank, do nothing.

    Raises DeviceError if ranks use different kinds of device, and RankError if one does not appear.
    """
    import torch
    import torch.distributed as dist

    from gancli.compute.device import DeviceChoice, chosen
    from gancli.compute.dist import meetings
    from gancli.config.build import make_as

    if not several() or _watch is None or dist.is_initialized():
        return
    choice, here = make_as(DeviceChoice, device, "device"), _watch.place
    where = chosen(choice.kind)
    if where.type == "mps":
        raise DeviceError("several ranks need CPUs or CUDA devices, not mps: set device=cpu")
    if where.type == "cuda":
        torch.cuda.set_device(where)
    elif choice.threads is None and os.environ.get("OMP_NUM_THREADS", "1") == "1":  # torchrun's default
        torch.set_num_threads(max(1, cores() // here.local_size))
    if here.local_size == here.size and sys.platform == "linux":
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # one machine: its host name need not resolve
    _watch.timeout = choice.timeout
    _watch.agree_on_device(where.type)
    try:
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if where.type == "cuda" else "gloo",
            store=_watch.section("group", _watch.base),
            rank=here.rank,
            world_size=here.size,
            timeout=_watch.duration(),
        )
    except RuntimeError as error:
        raise _watch.explain(error) from error
    meetings.explain = _watch.explain


def backend() -> str | None:
    """The backend of the process group, None for one rank."""
    import torch.distributed as dist

    if not (dist.is_available() and dist.is_initialized()):
        return None
    return "nccl" if "nccl" in str(dist.get_backend_config()) else "gloo"


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def one_first() -> Iterator[None]:
    """Run the body on the first rank of each machine before the others, which then find what it downloaded."""
    from gancli.compute.dist import World

    world, local = World.of_group(), place().local_rank
    if local:
        world.highest(0)
    yield
    if not local:
        world.highest(0)


# -- a job that was restarted ------------------------------------------------------------------------------------------


def own_run(chosen: str | None, world: World) -> tuple[Path, str] | None:
    """The run that this job was training before torchrun restarted it, and its status; None if there is none.

    chosen: the value of run_dir.
    """
    return world.from_first(lambda: _recorded(job(), chosen))


def _recorded(name: str | None, chosen: str | None) -> tuple[Path, str] | None:
    from gancli.store.rundir import OUTPUTS, RunDir

    if name is None:
        return None
    places = OUTPUTS.glob("train/*") if chosen is None else [Path(chosen).expanduser()]
    for path in places:
        try:
            about = RunDir(path).about()
        except RunError:
            continue
        if about.get("job") == name:
            return path, str(about.get("status"))
    return None


# -- heartbeats and failures -------------------------------------------------------------------------------------------


class Watch:
    """Monitors the other ranks: writes heartbeats, knows which rank failed first, and ends a rank that hangs after it.

    say: prints a line. Raises DeviceError if torchrun's store cannot be reached.
    """

    def __init__(self, place: Place, say: Say, base: Any = None):
        self.place, self.say, self.timeout = place, say, MEET
        try:
            self.base = base if base is not None else next(self._meeting())[0]
        except (RuntimeError, ValueError) as error:
            raise DeviceError(
                f"rank {place.rank} cannot reach MASTER_ADDR={os.environ.get('MASTER_ADDR')}"
                f" MASTER_PORT={os.environ.get('MASTER_PORT')} ({_short(error)}): start with torchrun"
            ) from None
        clone = getattr(self.base, "clone", None)  # a separate connection for the thread, if this torch supports it
        self.store = self.section("watch", clone() if clone is not None else self.base)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)
        self._thread.start()

    def section(self, name: str, store: Any) -> Any:
        """The part of a store for one purpose, new after each restart by torchrun, whose store outlives the ranks."""
        import torch.distributed as dist

        name = f"{name} {os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}"
        return dist.PrefixStore(name, store)  # type: ignore[attr-defined]

    def _meeting(self) -> Any:
        import torch.distributed as dist

        return dist.rendezvous("env://", timeout=self.duration())  # type: ignore[attr-defined]

    def duration(self) -> Any:
        """`timeout` as a timedelta, as torch expects it."""
        from datetime import timedelta

        return timedelta(seconds=self.timeout)

    def agree_on_device(self, kind: str) -> None:
        """Raise DeviceError unless rank 0 uses the same kind of device."""
        if self.place.rank == 0:
            self.store.set("device", kind)
        try:
            self.store.wait(["device"], self.duration())
        except RuntimeError as error:
            raise self.explain(error) from error
        others = self.store.get("device").decode()
        if others != kind:
            raise DeviceError(f"this rank uses {kind}, but rank 0 uses {others}: set device=cpu or device=cuda")

    def report(self, text: str) -> None:
        """Report this rank's error, unless another has. Rank 0 has priority, since most errors occur on all ranks."""
        if self.place.rank and self._reason(PATIENCE / 2) is not None:
            return
        try:
            if self.store.add("reports", 1) > 1:
                return
            self.store.set("why", f"{self.place.rank} {text}")
        except RuntimeError:  # the store and its process are gone
            pass
        self.say(text if self.place.rank == 0 or text.startswith("rank ") else f"rank {self.place.rank}: {text}")

    def leave(self, whole: bool) -> None:
        """Stop monitoring; whole: all ranks succeeded, so the process group can be destroyed."""
        import torch.distributed as dist

        if whole and dist.is_initialized():
            dist.destroy_process_group()
        self._over.set()
        # A thread inside the store's code at interpreter exit would crash the process.
        self._thread.join(timeout=GRACE)

    def explain(self, error: BaseException) -> RankError:
        """The error that explains why a collective call failed."""
        before = self._signs()
        reason = self._reason(PATIENCE)
        if reason is not None:
            return RankError(reason)
        after, late = self._signs(), "timed out" in str(error).lower() or "timeout" in str(error).lower()
        silent = [rank for rank in after if rank != self.place.rank and after[rank] == before.get(rank)]
        met = {rank: int(sign.split()[1]) for rank, sign in after.items() if sign}
        behind = [rank for rank in met if met[rank] < met.get(self.place.rank, 0)]
        remedy = "check its messages and its machine"
        if silent and not late:
            return RankError(f"{_ranks(silent)} gone, killed or disconnected: {remedy}")
        if silent:
            found = f"not responded for {self.timeout:g} s, stopped or disconnected: {remedy}"
            return RankError(f"{_ranks(silent, 'has', 'have')} {found}")
        if late and behind:
            found = f"not reached the others within device.timeout={self.timeout:g} seconds: {remedy}, or raise it"
            return RankError(f"{_ranks(behind, 'has', 'have')} {found}")
        return RankError(f"rank {self.place.rank} lost the others ({_short(error)}): check their messages")

    def _reason(self, patience: float) -> str | None:
        """Another rank's error, if it reports one within `patience` seconds."""
        end = time.monotonic() + patience
        while True:
            try:
                if self.store.check(["why"]):
                    rank, _, text = self.store.get("why").decode().partition(" ")
                    return text if text.startswith("rank ") else f"rank {rank} failed: {text}"
            except RuntimeError:
                return None
            if time.monotonic() >= end:
                return None
            time.sleep(0.05)

    def _signs(self) -> dict[int, str]:
        """Each rank's last heartbeat, empty if there was none."""
        found = dict.fromkeys(range(self.place.size), "")
        for rank in found:
            try:
                if self.store.check([f"beat {rank}"]):
                    found[rank] = self.store.get(f"beat {rank}").decode()
            except RuntimeError:
                break
        return found

    def _beat(self) -> None:
        from gancli.compute.dist import meetings

        beats, failed = 0, 0.0
        while not self._over.wait(BEAT):
            beats += 1
            try:
                self.store.set(f"beat {self.place.rank}", f"{beats} {meetings.begun}")
                failed = failed or (time.monotonic() if self.store.check(["why"]) else 0.0)
            except RuntimeError:
                continue
            if failed and time.monotonic() - failed > GRACE:
                os._exit(2)  # the main thread hangs in a collective call that cannot finish


_watch: Watch | None = None  # of this process, as torch has one process group


def _ranks(numbers: list[int], one: str = "is", more: str = "are") -> str:
    names = ", ".join(map(str, numbers))
    return f"rank {names} {one}" if len(numbers) == 1 else f"ranks {names} {more}"


def _short(error: BaseException) -> str:
    return " ".join(str(error).split())[:120]
