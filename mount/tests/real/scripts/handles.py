"""Handles of open_by_handle_at(2): made here, used when the kernel has forgotten the inode. Needs root.

handles.py make PATH..   prints a handle of each, in hexadecimal
handles.py use MOUNT HANDLE..   prints what each opens: its content, its names, or the errno
"""

import ctypes
import errno
import os
import sys

libc = ctypes.CDLL(None, use_errno=True)
AT_FDCWD = -100


def made(path):
    room = (ctypes.c_ubyte * 136)()
    ctypes.memmove(room, (128).to_bytes(4, sys.byteorder), 4)
    number = ctypes.c_int()
    if libc.name_to_handle_at(AT_FDCWD, os.fsencode(path), room, ctypes.byref(number), 0):
        raise OSError(ctypes.get_errno(), "name_to_handle_at")
    length = int.from_bytes(bytes(room[:4]), sys.byteorder)
    return bytes(room[: 8 + length]).hex()


def used(mount, handle):
    room = ctypes.create_string_buffer(bytes.fromhex(handle))
    fd = libc.open_by_handle_at(mount, room, os.O_RDONLY)
    if fd < 0:
        return errno.errorcode[ctypes.get_errno()]
    try:
        names = os.listdir(fd)
    except NotADirectoryError:
        with open(fd, "rb") as file:
            return file.read().decode()
    path = os.readlink(f"/proc/self/fd/{fd}")
    os.close(fd)
    return f"{os.path.basename(path)}: {' '.join(sorted(names))}"


if sys.argv[1] == "make":
    for path in sys.argv[2:]:
        print(made(path))
else:
    mount = os.open(sys.argv[2], os.O_RDONLY | os.O_DIRECTORY)
    for handle in sys.argv[3:]:
        print(used(mount, handle))
