"""The system calls that a program in the sandbox may make: those on this list, and no others.

What is not listed fails with ENOSYS, as on a kernel that never heard of it: so no sockets, no processes, no signals to
others, no ptrace, mounts, namespaces, keys, bpf, perf, io_uring, userfaultfd, nor whatever the next kernel invents; and
nothing that makes, renames, locks or changes a file: names cost the host memory, locks and metadata outlive a program.
Arguments are compared as 64 bits, of which the kernel may read 32: hence lists of what is allowed, never of what is
not.
"""

from __future__ import annotations

import errno
import tempfile
from functools import cache
from typing import Any

_ALLOWED = """
    brk mmap munmap mprotect mremap madvise
    read pread64 readv preadv preadv2 write pwrite64 writev pwritev open openat close close_range lseek
    fstat stat lstat newfstatat statx access faccessat faccessat2 readlink readlinkat getcwd chdir fchdir statfs fstatfs
    getdents getdents64 dup dup2 dup3 pipe pipe2 umask
    poll ppoll select pselect6 epoll_create1 epoll_ctl epoll_wait epoll_pwait epoll_pwait2
    execve exit exit_group wait4 waitid set_tid_address set_robust_list rseq arch_prctl restart_syscall
    futex sched_yield sched_getaffinity
    rt_sigaction rt_sigprocmask rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_sigpending sigaltstack tgkill
    getpid gettid getppid getpgrp getpgid getsid getuid geteuid getgid getegid getgroups getresuid getresgid
    uname sysinfo times getrusage getrlimit getrandom
    clock_gettime clock_getres clock_nanosleep nanosleep gettimeofday time setitimer getitimer alarm pause
    recvfrom shutdown
"""
_CLONE_THREAD = 0x00010000
_AF_UNIX = 1
# Descriptor flags, whether something is a terminal, non-blocking: never TIOCSTI, which would type into ours.
_IOCTLS = (0x5401, 0x5421, 0x5450, 0x5451)
# F_DUPFD, F_GETFD, F_SETFD, F_GETFL, F_SETFL, F_DUPFD_CLOEXEC: no locks, leases and notices, which the host would see.
_FCNTLS = (0, 1, 2, 3, 4, 1030)
# All but RLIMIT_CORE, which is 1 inside: at 0 a crash would start the host's handler of core dumps, as root.
_LIMITS = (*range(4), *range(5, 16))


@cache
def compiled_filter() -> bytes:
    """The list as a BPF program, the form that `bwrap --seccomp` reads.

    Raises:
        ImportError: pyseccomp is not installed.
        RuntimeError: libseccomp is not installed.
    """
    import pyseccomp as seccomp

    rules: Any = seccomp.SyscallFilter(seccomp.ERRNO(errno.ENOSYS))

    def allow(name: str, *args: Any) -> None:
        number = seccomp.resolve_syscall(seccomp.Arch.NATIVE, name)
        if number >= 0:  # an older or another machine's kernel may not have it
            rules.add_rule(seccomp.ALLOW, number, *args)

    for name in _ALLOWED.split():
        allow(name)
    # Threads, not processes: one process is what its limits bound, and leaves nothing behind.
    allow("clone", seccomp.Arg(0, seccomp.MASKED_EQ, _CLONE_THREAD, _CLONE_THREAD))
    # asyncio wakes itself through a pair of sockets that nothing else can reach; no address can be sent to.
    allow("socketpair", seccomp.Arg(0, seccomp.EQ, _AF_UNIX))
    allow("sendto", seccomp.Arg(4, seccomp.EQ, 0))
    for request in _IOCTLS:
        allow("ioctl", seccomp.Arg(1, seccomp.EQ, request))
    for command in _FCNTLS:
        allow("fcntl", seccomp.Arg(1, seccomp.EQ, command))
    allow("prlimit64", seccomp.Arg(2, seccomp.EQ, 0))
    for limit in _LIMITS:
        allow("prlimit64", seccomp.Arg(1, seccomp.EQ, limit))
        allow("setrlimit", seccomp.Arg(0, seccomp.EQ, limit))
    with tempfile.TemporaryFile() as file:
        rules.export_bpf(file)
        file.seek(0)
        return file.read()
