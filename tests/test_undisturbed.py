import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor

from cellseg.undisturbed import undisturbed


def test_sigterm_waits_until_a_block_has_ended():
    done = []
    before = signal.signal(signal.SIGTERM, lambda *_: done.append("left"))
    try:
        with undisturbed():
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.05)
            done.append("closed")
        assert done == ["closed", "left"]
        with undisturbed():
            pass
        assert done == ["closed", "left"]
    finally:
        signal.signal(signal.SIGTERM, before)


def closed():
    with undisturbed():
        return "closed"


def test_in_another_thread_nothing_waits():
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(closed).result() == "closed"
