#!/usr/bin/env python3
"""Reads the journals that simulated guests write (format: slave/guest_journal.c) and judges them.

    journal.py [--json] [--max-gap-ms N] JOURNAL...

A file is one VM's journal; its order is the order in which things happened. For each VM it tells who wrote when, the
longest time between two ticks, and each time that the guest stood still on its way to another host. Wrong are:

    second writer   two hosts ran the VM at one time: an epoch that goes back (a writer that is not the latest still
                    writes), two hosts in one epoch, a tick after a stop, a guest received that nobody had sent
    tick missing    the counter jumps, though the guest was neither booted nor restored in between
    tick twice      the counter goes back or stands, likewise
    no reading      a line that is none of ours (the last line may be cut off: the machine lost power)
    gap             more than --max-gap-ms between two ticks that follow one another

Exit status: 0 nothing wrong, 1 something wrong, 2 wrong usage. As a module: judge(path) returns a Report."""

import argparse
import json
import re
import sys
from dataclasses import asdict, dataclass, field

LINE = re.compile(r"^(# )?([0-9a-f-]{36}) (\d+) (\d+) (\d+)(?: ([a-z ]+))?$")


@dataclass
class Writer:
    """A stretch of lines by one host at one epoch."""

    host: str
    epoch: int
    origin: str = ""
    first_tick: int = 0
    last_tick: int = 0
    ticks: int = 0
    first_ms: int = 0
    last_ms: int = 0
    end: str = ""  # what it stopped for; empty: it runs, or was killed


@dataclass
class Report:
    path: str
    writers: list = field(default_factory=list)
    ticks: int = 0
    boots: int = 0
    moves: list = field(default_factory=list)  # {"from", "to", "still_ms"}: from standing still to running
    longest_gap_ms: int = 0
    wrong: list = field(default_factory=list)


class Reading:
    """The state of reading one journal, line by line."""

    def __init__(self, path, max_gap_ms):
        self.report = Report(path)
        self.max_gap_ms = max_gap_ms
        self.writer = None
        self.hosts = {}  # epoch -> host
        self.tick = None  # the last one, and when
        self.tick_ms = None
        self.still_ms = None  # standing still since
        self.is_anew = False  # booted or restored: the counter may be anywhere
        self.number = 0

    def complain(self, what):
        self.report.wrong.append(f"line {self.number}: {what}")

    def take_writer(self, host, epoch):
        """Who writes; a change of writer is where a VM could run twice."""
        writer = self.writer
        if writer and (writer.host, writer.epoch) == (host, epoch):
            return
        if self.hosts.setdefault(epoch, host) != host:
            self.complain(f"second writer: {host} writes at epoch {epoch}, which is {self.hosts[epoch]}'s")
        if writer and epoch < writer.epoch:
            self.complain(f"second writer: {host} at epoch {epoch} after {writer.host} at epoch {writer.epoch}")
        self.writer = Writer(host, epoch)
        self.report.writers.append(self.writer)

    def take_tick(self, tick, ms):
        writer = self.writer
        if writer.end:
            self.complain(f"second writer: {writer.host} ticks after it stopped ({writer.end})")
        if self.still_ms is not None:
            self.complain(f"second writer: {writer.host} ticks while it stands still")
        if self.is_anew or self.tick is None:
            self.is_anew = False
        else:
            if tick > self.tick + 1:
                self.complain(f"tick missing: {tick} after {self.tick}")
            elif tick <= self.tick:
                self.complain(f"tick twice: {tick} after {self.tick}")
            gap_ms = ms - self.tick_ms
            self.report.longest_gap_ms = max(self.report.longest_gap_ms, gap_ms)
            if self.max_gap_ms is not None and gap_ms > self.max_gap_ms:
                self.complain(f"gap: {gap_ms} ms between ticks {self.tick} and {tick}")
        self.tick, self.tick_ms = tick, ms
        if writer.ticks == 0:
            writer.first_tick, writer.first_ms = tick, ms
        writer.last_tick, writer.last_ms = tick, ms
        writer.ticks += 1
        self.report.ticks += 1

    def take_run(self, how, ms, previous):
        writer = self.writer
        if how in ("boot", "restored"):
            self.is_anew = True  # a restored one goes on at its image's tick, which an older image has earlier
            self.report.boots += how == "boot"
        if how == "received" and previous and previous is not writer:
            if previous.end != "sent":
                self.complain(f"second writer: {writer.host} received a guest that {previous.host} did not send")
            elif self.still_ms is not None:
                self.report.moves.append({"from": previous.host, "to": writer.host, "still_ms": ms - self.still_ms})
        writer.origin = writer.origin or how
        writer.end = ""
        self.still_ms = None

    def take_note(self, words, ms, previous):
        what, _, detail = words.partition(" ")
        if what == "run":
            self.take_run(detail, ms, previous)
        elif what == "pause":
            self.still_ms = ms
        elif what == "stop":
            self.writer.end = detail
            if self.still_ms is None:
                self.still_ms = ms
        else:
            self.complain(f"no reading: a note \"{words}\"")

    def take_line(self, line):
        self.number += 1
        match = LINE.match(line)
        if not match or bool(match[1]) != bool(match[6]):
            self.complain(f"no reading: {line[:60]!r}")
            return
        previous = self.writer
        self.take_writer(match[2], int(match[3]))
        if match[1]:
            self.take_note(match[6], int(match[5]), previous)
        else:
            self.take_tick(int(match[4]), int(match[5]))


def judge(path, max_gap_ms=None):
    """The Report of one journal."""
    reading = Reading(path, max_gap_ms)
    with open(path, encoding="ascii", errors="replace") as file:
        lines = file.read().split("\n")
    for line in lines[:-1]:  # what stands behind the last newline was cut off
        reading.take_line(line)
    return reading.report


def print_report(report):
    print(f"{report.path}: {report.ticks} ticks, {report.boots} boots, {len(report.moves)} moves, "
          f"longest gap {report.longest_gap_ms} ms")
    for w in report.writers:
        print(f"  {w.host} epoch {w.epoch}: {w.origin or 'went on'}, ticks {w.first_tick} to {w.last_tick}, "
              f"{w.end or 'no end'}")
    for move in report.moves:
        print(f"  moved from {move['from']} to {move['to']}, stood still for {move['still_ms']} ms")
    for wrong in report.wrong:
        print(f"  WRONG {wrong}")


def main():
    parser = argparse.ArgumentParser(description="judge the journals of simulated guests")
    parser.add_argument("--json", action="store_true", help="print one JSON list of reports")
    parser.add_argument("--max-gap-ms", type=int, help="ticks further apart than this are wrong")
    parser.add_argument("journals", nargs="+", metavar="JOURNAL")
    options = parser.parse_args()
    try:
        reports = [judge(path, options.max_gap_ms) for path in options.journals]
    except OSError as error:
        print(f"journal.py: {error}", file=sys.stderr)
        return 2
    if options.json:
        json.dump([asdict(report) for report in reports], sys.stdout, indent=1)
        print()
    else:
        for report in reports:
            print_report(report)
    return int(any(report.wrong for report in reports))


if __name__ == "__main__":
    sys.exit(main())
