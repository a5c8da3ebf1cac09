#!/usr/bin/env python3
"""A real master whose disk fails: what it acknowledged is there, what it did not is not answered.

The disk fails by a limit on the size of files (RLIMIT_FSIZE, set from outside while it runs): the journal's next growth is
refused, as on a disk that has an error. tests/unit/test_journal.c has each error of SQLite's; here it is the whole process."""

import glob
import resource
import threading

from drover import *

WRITERS = 8


def limit(m):
    """No file of the store may grow any more."""
    largest = max(os.path.getsize(f) for f in glob.glob(os.path.join(m.dir, "store", "*.db-wal")))
    resource.prlimit(m.process.pid, resource.RLIMIT_FSIZE, (largest, resource.RLIM_INFINITY))


class Writer(threading.Thread):
    """Counts up one key of the pool's other_config until the master answers no more."""

    def __init__(self, m, number):
        super().__init__(daemon=True)
        self.m, self.key, self.number, self.error = m, "writer-%d" % number, 0, None
        self.start()

    def run(self):
        try:
            s = self.m.login(originator=self.key)
            network = s("network.create", {"name_label": self.key, "name_description": "", "MTU": "1500", "other_config": {},
                                           "bridge": "", "managed": True, "tags": []})
            while True:
                s("network.set_name_description", network, str(self.number + 1))
                self.number += 1
        except Failure as e:
            self.error = list(e.args)
        except OSError as e:
            self.error = e
        except http.client.HTTPException as e:
            self.error = e


def a_failing_disk_ends_it_without_an_answer(m):
    writers = [Writer(m, i) for i in range(WRITERS)]
    wait_for(lambda: all(w.number > 20 for w in writers))
    limit(m)
    for w in writers:
        w.join(60)
        assert not w.is_alive()
        # Neither a success that was none nor a failure that may have been none.
        assert not isinstance(w.error, list), w.error
    code = m.process.wait(60)
    assert code != 0
    m.stop(expect=code)
    assert "closing all connections and starting anew" in m.log_text()
    m.start()
    s = m.login()
    for record in s("network.get_all_records").values():
        for w in writers:
            if record["name_label"] == w.key:
                # The last one may have been written: nobody was told.
                assert int(record["name_description"]) in (w.number, w.number + 1), (record, w.number)
                w.key = None
    assert all(w.key is None for w in writers)
    s("pool.set_name_label", s("pool.get_all")[0], "works again")


run(a_failing_disk_ends_it_without_an_answer)
