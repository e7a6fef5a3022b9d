"""Runs commands, given as JSON, in one process that has loopback alone, and prints whom they called on the net."""

import contextlib
import fcntl
import io
import ipaddress
import json
import runpy
import socket
import struct
import sys
from pathlib import Path

SET_FLAGS, UP = 0x8914, 0x1
"""of an interface: netdevice(7)"""
asked = []


def main():
    """Each command is [script, arguments...]; the first that fails ends all."""
    loopback_up()
    note_calls()
    for script, *arguments in json.loads(sys.argv[1]):
        run(script, arguments)
    print(json.dumps(asked))


def loopback_up():
    """The loopback of a new network namespace is down."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, SET_FLAGS, struct.pack("16sh14x", b"lo", UP))


def note_calls():
    """Keep all names that are looked up and addresses that are called, but those of this machine."""
    connect, connect_ex, look_up = socket.socket.connect, socket.socket.connect_ex, socket.getaddrinfo
    socket.socket.connect = lambda self, place: noted(place) or connect(self, place)
    socket.socket.connect_ex = lambda self, place: noted(place) or connect_ex(self, place)
    socket.getaddrinfo = lambda host, *more, **options: noted((host,)) or look_up(host, *more, **options)


def noted(place):
    """Note a place that is not this machine; a string is a file."""
    if isinstance(place, tuple) and not local(place[0]):
        asked.append(str(place[0]))


def local(host):
    """Whether a name or an address is this machine."""
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host in (None, "", "localhost", socket.gethostname())


def run(script, arguments):
    """A script, or `cellseg`, as a user runs it, silent unless it fails."""
    sys.argv = [script, *arguments]
    sys.path.insert(0, str(Path(script).parent))
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            if script == "cellseg":
                runpy.run_module("cellseg", run_name="__main__")
            else:
                runpy.run_path(script, run_name="__main__")
    except SystemExit as end:
        if end.code:
            sys.exit(f"{script}: {end.code}\n{said.getvalue()}")
    finally:
        del sys.path[0]


if __name__ == "__main__":
    main()
