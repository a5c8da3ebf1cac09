#!/usr/bin/env python3
"""Options and the settings' file: what is wrong is named; what SIGHUP takes over, and what it does not."""

import ssl

from drover import *

BINARY = os.path.join(BUILD, "drover-master")


def refused(*arguments):
    r = subprocess.run([BINARY, *arguments], capture_output=True, timeout=30)
    assert r.returncode == 2, r
    return r.stderr.decode()


def wrong_settings_are_named(m):
    path = os.path.join(m.dir, "conf")

    def conf(text):
        with open(path, "w") as f:
            f.write(text)
        return refused("--config", path)

    assert "colour" in refused("--colour", "red")
    assert "--dir" in refused("--dir")
    assert "http_loops" in refused("--http_loops", "many")
    assert "http_loops" in refused("--http-loops=0")
    assert "log_level" in refused("--log_level", "loud", "--dir", m.dir)
    assert "word" in refused("--dir", m.dir, "word")
    assert "colour" in conf("colour = red\n")
    assert "section" in conf("[section]\ndir = x\n")
    assert "line 2" in conf("dir = x\nnonsense\n")
    assert "nowhere" in refused("--config", os.path.join(m.dir, "nowhere"))


def nothing_is_made_by_a_start_that_cannot_be_meant(m):
    listen = ("--listen", "127.0.0.1:0")
    with tempfile.TemporaryDirectory() as top:
        new = os.path.join(top, "new")
        nowhere = os.path.join(top, "nowhere")

        def fails(status, *arguments, program=BINARY):
            r = subprocess.run([program, *arguments], capture_output=True, timeout=30, cwd=top)
            assert r.returncode == status and os.listdir(top) == [], (r, os.listdir(top))
            return r.stderr.decode()

        slave = os.path.join(BUILD, "drover-slave")
        assert "dir: not given" in fails(2)
        assert "dir: not given" in fails(2, *listen)
        assert "dir: not given" in fails(2, program=slave)
        assert "no listener" in fails(2, "--dir", new)
        assert nowhere in fails(2, "--dir", new, *listen, "--pool_secret_file", nowhere)
        assert nowhere in fails(2, "--dir", new, *listen, "--root_password_file", nowhere)
        busy = m.url[len("http://"):]
        for program in (BINARY, slave):
            for key in ("--listen", "--listen_tls"):
                assert "nonsense" in fails(1, "--dir", new, key, "nonsense", program=program)
                assert busy in fails(1, "--dir", new, key, busy, program=program)
        assert busy in fails(1, "--dir", new, *listen, "--link_listen", busy)
        assert busy in fails(1, "--dir", new, *listen, "--join_listen", busy)


def the_first_password_may_be_deleted_later(m):
    m.stop()
    named = os.path.join(m.dir, "first")
    os.rename(os.path.join(m.dir, "root-password"), named)
    m.options = ("--root_password_file", named)
    m.start()
    os.remove(named)
    m.stop()
    m.start()
    m.call("session.login_with_password", "root", PASSWORD)
    assert not os.path.exists(named)
    m.stop()
    m.options = ()
    m.start()


def help_lists_every_key(m):
    text = subprocess.run([BINARY, "--help"], capture_output=True, check=True).stdout.decode()
    with open(os.path.join(ROOT, "master", "config.h")) as f:
        fields = f.read().split("struct config {")[1].split("};")[0]
    for line in fields.splitlines():
        if ";" not in line or "memory" in line or "is_" in line:
            continue
        names = line.split(";")[0].replace("*", " ").split()
        for name in names[1 + (names[0] in ("const", "struct")):]:
            assert "--" + name.strip(",") in text, name
    assert subprocess.run([BINARY, "--version"], capture_output=True).stdout.startswith(b"drover-master ")


def a_signal_reloads(m):
    m.stop()
    path = os.path.join(m.dir, "conf")
    log = os.path.join(m.dir, "own.log")
    with open(path, "w") as f:
        f.write("# comment\nlog_level = debug\nlog_file = %s\ntasks_kept = 7\n" % log)
    m.options = ("--log_file", log)
    process = subprocess.Popen([BINARY, "--config", path, "--dir", m.dir, "--listen", "127.0.0.1:0",
                                "--listen_tls", "127.0.0.1:0"], stdout=subprocess.PIPE)
    try:
        assert process.stdout.readline().startswith(b"ready http://")
        os.rename(log, log + ".1")
        with open(path, "w") as f:
            f.write("log_level = info\nlog_file = %s\ntasks_kept = 8\n" % log)
        process.send_signal(signal.SIGHUP)
        wait_for(lambda: os.path.exists(log) and "settings read again" in open(log).read())
        assert "tasks_kept" in open(log + ".1").read() + open(log).read()
        with open(path, "w") as f:
            f.write("nonsense\n")
        process.send_signal(signal.SIGHUP)
        wait_for(lambda: "cannot be read" in open(log).read())
    finally:
        process.send_signal(signal.SIGTERM)
        code = process.wait(30)
        process.stdout.close()
    assert code == 0, code
    m.start()


def https_is_served(m):
    m.stop()
    m.options = ("--listen_tls", "127.0.0.2:0")
    with socket.socket() as s:
        s.bind(("127.0.0.2", 0))
        port = s.getsockname()[1]
    m.options = ("--listen_tls", "127.0.0.2:%d" % port)
    m.start()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    c = http.client.HTTPSConnection("127.0.0.2", port, context=context, timeout=30)
    assert Session(m, m.call("session.login_with_password", "root", PASSWORD, connection=c))("pool.get_all", connection=c)
    c.close()


run(wrong_settings_are_named, nothing_is_made_by_a_start_that_cannot_be_meant, the_first_password_may_be_deleted_later,
    help_lists_every_key, a_signal_reloads, https_is_served)
