#!/usr/bin/env python3
"""drover-master --describe says what the reference tables say, but for the departures listed here."""

import csv
import os
import re
import subprocess
import sys

from drover import BUILD, NULL, ROOT

# What Drover does differently on purpose: (section, key, column): ours.
DEPARTURES = {
    # Our messages are objects of a class like any other, listings included.
    ("classes", "message", "get_all_records"): "yes",
    # Tasks and messages are durable like anything else; sessions are not in any store.
    ("classes", "task", "persistent"): "yes",
    ("classes", "message", "persistent"): "yes",
    ("classes", "message", "in_database"): "yes",
    # A session's reference is a credential: it stands on no disk.
    ("fields", "task.session", "persistent"): "no",
    # What comes every five seconds from every host costs no sync.
    ("fields", "host_metrics.memory_free", "persistent"): "no",
    ("fields", "host_metrics.last_updated", "persistent"): "no",
    # Whoever may not read a secret does not read what is written on it.
    ("messages", "secret.get_other_config", "min_role"): "pool-operator",
}
# The tables are at odds with themselves: a class came as a prototype before it was published, and what belongs to it is
# dated by either; relations to the own class's table and removed messages are marked in one of two places.
TABLE_SLIPS = {
    ("since", "Cluster"), ("since", "Cluster_host"), ("since", "probe_result"), ("since", "sr_stat"), ("since", "VTPM"),
    ("state", "Cluster"), ("state", "Cluster_host"), ("state", "VDI.resize_online"),
    ("inverse", "role.subroles"), ("inverse", "subject.roles"), ("default", "PVS_site.cache_storage"),
}


KEYS = {"classes": ("class",), "fields": ("class", "field"), "messages": ("class", "message"),
        "enums": ("enum", "value"), "errors": ("error",)}


def sections():
    text = subprocess.run([os.path.join(BUILD, "drover-master"), "--describe"], check=True, capture_output=True).stdout
    found, counts, rows = {}, {}, None
    for line in text.decode().splitlines():
        if line.startswith("# count "):
            counts[title] = int(line[8:])
        elif line.startswith("# "):
            title, rows = line[2:], []
            found[title] = rows
        else:
            rows.append(line.split("\t"))
    return {t: [dict(zip(r[0], line)) for line in r[1:]] for t, r in found.items()}, counts


def table(name):
    with open(os.path.join(ROOT, "tests", "reference", name + ".tsv"), newline="") as f:
        return list(csv.DictReader(f, delimiter="\t", quoting=csv.QUOTE_NONE))


def same(column, ours, theirs):
    """Compares cells, past what the tables spell in two ways."""
    if column in ("type", "result"):                              # an option is a matter of records, the type is x
        theirs = re.sub(r"^option\((.*)\)$", r"\1", theirs)
    if column == "params":
        params = [p if "=" in p else p.split("@")[0] for p in theirs.split("; ")]   # those came with their message
        theirs = "; ".join(re.sub(r"(:enum \w+)=\[\]", r"\1=", p.replace('"OpaqueRef:NULL"', NULL)) for p in params)
    return ours == theirs


def is_slip(column, key):
    return (column, key) in TABLE_SLIPS or (column, key.split(".")[0]) in TABLE_SLIPS


def by_key(name, rows):
    keyed = {".".join(row[k] for k in KEYS[name]): row for row in rows}
    assert len(keyed) == len(rows), "%s: a row comes twice" % name
    return keyed


def main():
    described, counts = sections()
    differences = 0
    used = set()
    for name in KEYS:
        ours, theirs = by_key(name, described[name]), by_key(name, table(name))
        for key in sorted(set(ours) ^ set(theirs)):
            print("%s: %s is %s" % (name, key, "ours only" if key in ours else "missing"))
            differences += 1
        for key in sorted(set(ours) & set(theirs)):
            for column in ours[key]:
                expected = theirs[key].get(column)
                departure = (name, key, column)
                if expected is None or same(column, ours[key][column], expected) or is_slip(column, key):
                    continue
                if DEPARTURES.get(departure) == ours[key][column]:
                    used.add(departure)
                    continue
                print("%s %s: %s is %r, not %r" % (name, key, column, ours[key][column], expected))
                differences += 1
    for departure in sorted(set(DEPARTURES) - used):
        print("no such departure: %s %s %s" % departure)
        differences += 1
    for section in ("later", "no_effect"):
        assert counts[section] == len(described[section])
        print("%s: %d messages" % (section, counts[section]))
    print("%d differences" % differences)
    return 1 if differences else 0


sys.exit(main())
