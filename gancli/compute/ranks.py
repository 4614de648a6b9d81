"""Several processes as one run: what torchrun tells them, how they meet, and how one that fails ends them all.

torchrun gives every process its place in the environment and a store that all can reach. The ranks report there that
they are alive, and the first that fails says why, so that one line is printed, and it names the right rank.
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

BEAT = 0.5  # seconds between signs of life
PATIENCE = 2.5  # seconds in which a living rank gives several, and a failing one says why
GRACE = 10.0  # seconds after another's failure in which a rank has to end by itself
MEET = 600.0  # seconds for all ranks to appear

Say = Callable[[str], None]


@dataclass(frozen=True)
class Place:
    """What torchrun tells a process: its number of how many, on its machine and in all."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1


def several() -> bool:
    """Whether this process was started as one of several."""
    return os.environ.get("WORLD_SIZE", "1").strip() not in ("", "1")


def place() -> Place:
    """This process's place. Raises DeviceError where the environment does not make sense."""
    if not several():
        return Place()
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    found = [os.environ.get(name, "") for name in names]
    # Launchers other than torchrun may leave out what is local.
    found[2:] = [found[2] or found[0], found[3] or found[1]]
    good = all(word.isdigit() for word in found) and int(found[0]) < int(found[1])
    if not good or not os.environ.get("MASTER_ADDR") or not os.environ.get("MASTER_PORT"):
        raise DeviceError(
            f"WORLD_SIZE={os.environ['WORLD_SIZE']} says that this is one process of several, and RANK, MASTER_ADDR and"
            " MASTER_PORT do not fit: start with torchrun --nproc-per-node=N -m gancli, or unset WORLD_SIZE"
        )
    return Place(*map(int, found))


def job() -> str | None:
    """What tells this launch of torchrun from all others, the same after it restarted its ranks; None without torchrun.

    Its run id and, since that may be used again, the launching process on this machine.
    """
    name = os.environ.get("TORCHELASTIC_RUN_ID")
    if name is None:
        return None
    parent = os.getppid()
    try:
        born = Path(f"/proc/{parent}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19]
    except (OSError, IndexError):  # no such thing on this system
        born = "?"
    return f"{name} {platform.node()} {parent} {born}"


# -- the process as a whole --------------------------------------------------------------------------------------------


def as_one(work: Callable[[Say], int]) -> int:
    """Do `work`, one rank's part of a command, so that rank 0 alone prints and any error is said once; its exit code.

    `work` is given what says an error.
    """
    global _watch
    aloud = sys.stderr
    try:
        _watch = Watch(place(), lambda text: print(f"gan: {text}", file=aloud, flush=True))
    except DeviceError as error:
        print(f"gan: {error}", file=aloud)
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
    """Make one group of all ranks, over gloo or nccl by the `device` section; alone, do nothing.

    Raises DeviceError where they compute on different kinds of device, and RankError where one does not come.
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
        raise DeviceError("several ranks compute on CPUs or on CUDA devices: set device=cpu")
    if where.type == "cuda":
        torch.cuda.set_device(where)
    elif choice.threads is None and os.environ.get("OMP_NUM_THREADS", "1") == "1":  # torchrun's own doing
        torch.set_num_threads(max(1, cores() // here.local_size))
    if here.local_size == here.size and sys.platform == "linux":
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # one machine: its name need not be known to any network
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
    """What the ranks speak over, None for one rank."""
    import torch.distributed as dist

    if not (dist.is_available() and dist.is_initialized()):
        return None
    return "nccl" if "nccl" in str(dist.get_backend_config()) else "gloo"


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def one_first() -> Iterator[None]:
    """Let the first rank of every machine do something before its others: what it downloads is there for them."""
    from gancli.compute.dist import World

    world, local = World.of_group(), place().local_rank
    if local:
        world.highest(0)
    yield
    if not local:
        world.highest(0)


# -- a job that was restarted ------------------------------------------------------------------------------------------


def own_run(chosen: str | None, world: World) -> tuple[Path, str] | None:
    """The run that this job was training before torchrun restarted it, and its status; None where there is none.

    chosen: the run_dir asked for.
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


# -- who is alive, and who failed --------------------------------------------------------------------------------------


class Watch:
    """One rank's eye on the others: gives signs of life, knows who failed first, and ends a rank that is left behind.

    say: prints a line. Raises DeviceError where torchrun's store cannot be reached.
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
        clone = getattr(self.base, "clone", None)  # a connection of the thread's own, where this torch has that
        self.store = self.section("watch", clone() if clone is not None else self.base)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)
        self._thread.start()

    def section(self, name: str, store: Any) -> Any:
        """A store's keys of one use, since torchrun's last restart: its store outlives the ranks."""
        import torch.distributed as dist

        name = f"{name} {os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}"
        return dist.PrefixStore(name, store)  # type: ignore[attr-defined]

    def _meeting(self) -> Any:
        import torch.distributed as dist

        return dist.rendezvous("env://", timeout=self.duration())  # type: ignore[attr-defined]

    def duration(self) -> Any:
        """`timeout` as torch wants it."""
        from datetime import timedelta

        return timedelta(seconds=self.timeout)

    def agree_on_device(self, kind: str) -> None:
        """Raise DeviceError unless rank 0 computes on such a device, too."""
        if self.place.rank == 0:
            self.store.set("device", kind)
        try:
            self.store.wait(["device"], self.duration())
        except RuntimeError as error:
            raise self.explain(error) from error
        others = self.store.get("device").decode()
        if others != kind:
            raise DeviceError(f"this rank computes on {kind} and rank 0 on {others}: set device=cpu or device=cuda")

    def report(self, text: str) -> None:
        """Say why this rank fails, unless another has said so for itself. Rank 0 comes first: most errors are all's."""
        if self.place.rank and self._reason(PATIENCE / 2) is not None:
            return
        try:
            if self.store.add("reports", 1) > 1:
                return
            self.store.set("why", f"{self.place.rank} {text}")
        except RuntimeError:  # the store is gone, and with it whoever held it
            pass
        self.say(text if self.place.rank == 0 or text.startswith("rank ") else f"rank {self.place.rank}: {text}")

    def leave(self, whole: bool) -> None:
        """Stop watching; whole: all is done, so the group can be taken down."""
        import torch.distributed as dist

        if whole and dist.is_initialized():
            dist.destroy_process_group()
        self._over.set()
        # A thread that is inside the store's code when the interpreter goes takes the whole process down with it.
        self._thread.join(timeout=GRACE)

    def explain(self, error: BaseException) -> RankError:
        """What a collective call failed of, in words."""
        before = self._signs()
        reason = self._reason(PATIENCE)
        if reason is not None:
            return RankError(reason)
        after, late = self._signs(), "timed out" in str(error).lower() or "timeout" in str(error).lower()
        silent = [rank for rank in after if rank != self.place.rank and after[rank] == before.get(rank)]
        met = {rank: int(sign.split()[1]) for rank, sign in after.items() if sign}
        behind = [rank for rank in met if met[rank] < met.get(self.place.rank, 0)]
        remedy = "look at its messages and its machine"
        if silent and not late:
            return RankError(f"{_ranks(silent)} gone, killed or cut off: {remedy}")
        if silent:
            words = f"given no sign of life for {self.timeout:g} s, stopped or cut off: {remedy}"
            return RankError(f"{_ranks(silent, 'has', 'have')} {words}")
        if late and behind:
            words = f"not come to meet the others within device.timeout={self.timeout:g} seconds: {remedy}, or raise it"
            return RankError(f"{_ranks(behind, 'has', 'have')} {words}")
        return RankError(f"rank {self.place.rank} lost the others ({_short(error)}): look at their messages")

    def _reason(self, patience: float) -> str | None:
        """Why another rank failed, if it says so in time."""
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
        """Each rank's last sign of life, empty for one that gave none."""
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
                os._exit(2)  # the main thread hangs in a call of the device's that nobody will answer


_watch: Watch | None = None  # of this process, as torch has one process group


def _ranks(numbers: list[int], one: str = "is", more: str = "are") -> str:
    names = ", ".join(map(str, numbers))
    return f"rank {names} {one}" if len(numbers) == 1 else f"ranks {names} {more}"


def _short(error: BaseException) -> str:
    return " ".join(str(error).split())[:120]
