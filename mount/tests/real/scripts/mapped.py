"""One file mapped by two processes, beside read, write and truncation by both. Says `good`, or dies of an assertion."""

import mmap
import os
import signal
import sys

path = sys.argv[1]
PAGE = mmap.PAGESIZE
PAGES = 300
fd = os.open(path, os.O_RDWR | os.O_CREAT)
os.ftruncate(fd, PAGES * PAGE)

down, up = os.pipe(), os.pipe()
# A parent that dies closes the pipe, and the child ends as well.
child = os.fork()
reads, writes = (down[0], up[1]) if child == 0 else (up[0], down[1])
for end in (*down, *up):
    if end not in (reads, writes):
        os.close(end)


def tell():
    os.write(writes, b".")


def wait():
    assert os.read(reads, 1) == b".", "the other process ended"


own = os.open(path, os.O_RDWR)
memory = mmap.mmap(own, PAGES * PAGE)
if child == 0:
    for turn in range(100):
        wait()
        at = turn * 3 % PAGES * PAGE + turn
        assert memory[at] == turn + 1, "a store is not seen by the other mapping"
        assert os.pread(own, 1, at)[0] == turn + 1, "a store is not seen by read"
        os.pwrite(own, b"w" * 10, at + 1)
        memory[at + 11] = 7
        tell()
    wait()
    assert bytes(memory[PAGE : PAGE + 5]) == b"after", "behind a truncation"
    tell()
    os._exit(0)
for turn in range(100):
    at = turn * 3 % PAGES * PAGE + turn
    memory[at] = turn + 1
    tell()
    wait()
    assert bytes(memory[at + 1 : at + 11]) == b"w" * 10, "a write is not seen by the other's mapping"
    assert os.pread(fd, 12, at + 11)[0] == 7
# Cut off and grown again: zeros, in mappings too.
os.ftruncate(fd, PAGE)
os.ftruncate(fd, PAGES * PAGE)
assert memory[PAGE : 4 * PAGE].count(0) == 3 * PAGE
memory[PAGE : PAGE + 5] = b"after"
tell()
wait()
assert os.waitpid(child, 0)[1] == 0, "the other process failed"
memory[10] = 99
memory.flush()
# Past the end there is no page.
os.ftruncate(fd, PAGE)
child = os.fork()
if child == 0:
    memory[2 * PAGE]
    os._exit(0)
assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGBUS
# A private mapping keeps its stores to itself.
private = mmap.mmap(fd, PAGE, flags=mmap.MAP_PRIVATE)
private[0:4] = b"mine"
assert os.pread(fd, 4, 0) != b"mine"
os.fsync(fd)
print("good")
