"""How far long work is: a live bar where standard error is a terminal, else a line now and then.

What is told is put into words by one pure function, for both. The bar shares the terminal with lines that are said
meanwhile: they appear above it. Nothing but plain text is written to what is not a terminal.
"""

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from jobs.terminal import is_quiet, say_aside

LINE_EVERY_S = 30.0
"""Between two lines, where there is no bar."""

RECENT_S = 300.0
"""The rate is that of so long: work rarely goes on as it began."""

FEW = 20
"""And of so many steps at least: workers end theirs in bursts."""


def in_words(*, done: float, total: float | None, unit: str, per_s: float | None, note: str = "") -> str:
    """Where work is, how fast it goes and how long the rest will take, as far as that is known.

    >>> in_words(done=120, total=600, unit="clips", per_s=4.0, note="3 failed")
    '120 of 600 clips, 4.0 clips/s, 2:00 left, 3 failed'
    >>> in_words(done=2.25, total=30, unit="epochs", per_s=0.05)
    '2.2 of 30 epochs, 0:20 each, 9:15 left'
    >>> in_words(done=7, total=None, unit="files", per_s=None)
    '7 files'
    """
    parts = [f"{_amount(done)} {unit}" if total is None else f"{_amount(done)} of {_amount(total)} {unit}"]
    if per_s:
        parts.append(f"{per_s:.1f} {unit}/s" if per_s >= 0.5 else f"{_clock(1 / per_s)} each")
        if total is not None and done < total:
            parts.append(f"{_clock((total - done) / per_s)} left")
    return ", ".join([*parts, *([note] if note else [])])


def _amount(value: float) -> str:
    return f"{value:.0f}" if float(value).is_integer() else f"{value:.1f}"


def _clock(seconds: float) -> str:
    """Minutes and seconds, and hours where there are any."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02}" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


@dataclass(kw_only=True)
class Rate:
    """How fast work goes, from when how much was done."""

    clock: Callable[[], float] = time.monotonic
    """Seconds."""
    seen: list[tuple[float, float]] = field(default_factory=list)
    """Moment and amount, those that are recent and the last one before."""

    def at(self, done: float) -> float | None:
        """Per second, once so much is done; None where that is not known."""
        now_s = self.clock()
        if not self.seen or done > self.seen[-1][1]:
            self.seen.append((now_s, done))
        while len(self.seen) > FEW and now_s - self.seen[1][0] > RECENT_S:
            del self.seen[0]
        from_s, before = self.seen[0]
        return (done - before) / (now_s - from_s) if now_s > from_s and done > before else None


Step = Callable[[float, float | None, str], object]
"""Told how much is done, of how much (None: nobody knows), and what else is to be shown."""


@dataclass(kw_only=True)
class Progress:
    """What a job tells how far it is."""

    step: Step
    """To be called whenever that has changed."""
    live: bool
    """Whether it is a bar: then lines about the same are too much."""


def has_terminal() -> bool:
    """Whether somebody watches standard error on a screen that can move."""
    return sys.stderr.isatty() and os.environ.get("TERM", "") not in ("", "dumb", "unknown")


@contextmanager
def progress(title: str, unit: str, *, total: float | None = None) -> Iterator[Progress]:
    """Show how far some work is, for the time of a block.

    Args:
        title: Of the work, in a word.
        unit: What is counted, in the plural.
        total: How much there is to do, where that is known before.
    """
    if is_quiet():
        yield Progress(step=lambda *_: None, live=False)
    elif has_terminal():
        with _bar(title, unit, total) as step:
            yield Progress(step=step, live=True)
    else:
        yield Progress(step=said_now_and_then(title, unit, say=say_aside), live=False)


def said_now_and_then(
    title: str, unit: str, *, say: Callable[[str], object], clock: Callable[[], float] = time.monotonic
) -> Step:
    """What is told, as a line every `LINE_EVERY_S`."""
    rate, said_s = Rate(clock=clock), clock()

    def step(done: float, total: float | None, note: str) -> None:
        nonlocal said_s
        per_s, now_s = rate.at(done), clock()
        if now_s - said_s >= LINE_EVERY_S:
            said_s = now_s
            say(f"{title}: {in_words(done=done, total=total, unit=unit, per_s=per_s, note=note)}")

    return step


@contextmanager
def _bar(title: str, unit: str, total: float | None) -> Iterator[Step]:
    """What is told, as a bar on standard error; it stays where it ends."""
    import rich.progress as shown  # Here: a job without a terminal has no use for it.
    from rich.console import Console

    rate, lately = Rate(), [0.0, total, ""]

    def words() -> str:
        done, whole, note = lately
        return in_words(done=done, total=whole, unit=unit, per_s=rate.at(done), note=note)

    # Before the first step nothing is known: what was done earlier is no speed.
    start = "" if total is None else in_words(done=0, total=total, unit=unit, per_s=None)

    columns = (
        shown.TextColumn("{task.description}", markup=False),
        shown.BarColumn(bar_width=24),
        shown.TextColumn("{task.fields[words]}", markup=False),
        shown.TimeElapsedColumn(),
    )
    # What is printed to standard output goes above the bar only where both are one screen, else where it always goes.
    both = sys.stdout.isatty()
    with shown.Progress(*columns, console=Console(stderr=True, highlight=False), redirect_stdout=both) as bar:
        task = bar.add_task(title, total=total, words=start)

        def step(done: float, whole: float | None, note: str) -> None:
            lately[:] = [done, whole, note]
            bar.update(task, completed=done, total=whole, words=words())

        yield step
