#!/usr/bin/env python3
"""A real master whose disk fails: what it acknowledged is there, what it did not is not answered.

The disk fails by a limit on the size of files (RLIMIT_FSIZE, set from outside while it runs): the journal's next growth is
refused, as on a disk that has an error. tests/unit/test_journal.c has each error of SQLite's; here it is the whole process."""

import glob
import resource
import threading
import urllib.request

from drover import *

WRITERS = 8


def limit(m):
    """No file of the store may grow any more. (What is in the WAL can be copied: then there is room again.)"""
    largest = max(os.path.getsize(f) for f in glob.glob(os.path.join(m.dir, "store", "*.db-wal")))
    resource.prlimit(m.process.pid, resource.RLIMIT_FSIZE, (largest, resource.RLIM_INFINITY))


def ready_again(m):
    """It has begun anew, with another port."""
    line = m.process.stdout.readline().decode().split()
    assert line[:1] == ["ready"], line
    m.url = line[1]
    host, port = m.url[len("http://"):].split(":")
    m.address = (host, int(port))


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
    ready_again(m)
    assert "closing all connections and starting anew" in m.log_text()
    resource.prlimit(m.process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    ready_again(m)
    s = m.login()
    for record in s("network.get_all_records").values():
        for w in writers:
            if record["name_label"] == w.key:
                # The last one may have been written: nobody was told.
                assert int(record["name_description"]) in (w.number, w.number + 1), (record, w.number)
                w.key = None
    assert all(w.key is None for w in writers)
    s("pool.set_name_label", s("pool.get_all")[0], "works again")


def metric(m, name):
    text = urllib.request.urlopen(m.url + "/metrics").read().decode()
    return next(float(line.split()[-1]) for line in text.splitlines() if line.startswith(name + " "))


def serves_reads_only(m, name):
    """Reads are answered, from what the disk holds; writes with an error that says why they are not done."""
    s = m.login()
    pool = s("pool.get_all")[0]
    assert s("pool.get_name_label", pool) == name
    assert s("VM.get_all_records")
    for call in (("pool.set_name_label", pool, "lost"), ("network.create", {"name_label": "lost", "MTU": "1500"}),
                 ("session.change_password", PASSWORD, "lost"), ("Async.pool.get_all_records",),
                 ("pool.add_to_other_config", pool, "lost", "lost")):
        try:
            s(*call)
            raise AssertionError("%s was answered" % call[0])
        except Failure as e:
            assert e.args[0] == "OPERATION_NOT_ALLOWED" and "refuses writes" in e.args[1], (call, e.args)
    assert s("pool.get_name_label", pool) == name
    token = s("event.from", ["pool"], "", 0.1)["token"]
    s("event.from", ["pool"], token, 0.1)
    s("session.logout")
    local = Session(m, m.call("session.slave_local_login_with_password", "root", PASSWORD))
    assert local("host.is_in_emergency_mode") is False
    local("session.local_logout")
    assert metric(m, "drover_read_only") == 1


def takes_up_writing(m, name):
    """By itself, when the disk allows: as a new start does."""
    ready_again(m)
    s = m.login()
    pool = s("pool.get_all")[0]
    assert s("pool.get_name_label", pool) == name
    s("pool.set_name_label", pool, "works again")
    assert s("pool.get_name_label", pool) == "works again"
    assert metric(m, "drover_read_only") == 0
    s("pool.set_name_label", pool, name)


def a_disk_that_refuses_is_read(m):
    """The limit - nothing at all can be written, be it a line of the log - stays when the master begins anew."""
    s = m.login()
    s("pool.set_name_label", s("pool.get_all")[0], "read me")
    resource.prlimit(m.process.pid, resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))
    try:
        s("pool.set_name_label", s("pool.get_all")[0], "not known")
        raise AssertionError("it was answered")
    except (OSError, http.client.HTTPException):
        pass
    ready_again(m)
    serves_reads_only(m, "read me")
    resource.prlimit(m.process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    takes_up_writing(m, "read me")


def mounted(m, options):
    """The store's directory as a file system of its own; None where nothing may be mounted."""
    path = os.path.join(m.dir, "store")
    copy = tempfile.mkdtemp()
    shutil.copytree(path, copy, dirs_exist_ok=True)
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", path], stderr=subprocess.DEVNULL, check=False)
    if done.returncode == 0:
        shutil.copytree(copy, path, dirs_exist_ok=True)
    shutil.rmtree(copy)
    return path if done.returncode == 0 else None


def full_and_read_only_disks_are_read(m):
    s = m.login()
    s("pool.set_name_label", s("pool.get_all")[0], "on a small disk")
    m.process.send_signal(signal.SIGKILL)                               # leaves a WAL, which holds that
    m.stop(expect=-signal.SIGKILL)
    path = mounted(m, "size=192m")
    if not path:
        print("not tried: nothing may be mounted here")
        m.start()
        return
    try:
        # Full to the last byte.
        ballast = os.path.join(path, "filler")
        with open(ballast, "wb", buffering=0) as f:
            try:
                while f.write(bytes(4096)):
                    pass
            except OSError:
                pass
        m.start()
        assert "serving reads only" in m.log_text()
        serves_reads_only(m, "on a small disk")
        os.remove(ballast)
        takes_up_writing(m, "on a small disk")
        # Mounted to be read: with a WAL, and - after a clean end - without one.
        for number in signal.SIGKILL, signal.SIGTERM:
            m.process.send_signal(number)
            m.stop(expect=-number if number == signal.SIGKILL else 0)
            subprocess.run(["mount", "-o", "remount,ro", path], check=True)
            m.start()
            serves_reads_only(m, "on a small disk")
            subprocess.run(["mount", "-o", "remount,rw", path], check=True)
            takes_up_writing(m, "on a small disk")
    finally:
        m.process.kill()
        m.process.wait()
        subprocess.run(["umount", path], check=True)
    m.stop(expect=-signal.SIGKILL)
    m.start()


run(a_failing_disk_ends_it_without_an_answer, a_disk_that_refuses_is_read, full_and_read_only_disks_are_read)
