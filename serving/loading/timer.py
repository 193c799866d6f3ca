"""An alarm clock that is right to some tens of microseconds."""

from __future__ import annotations

import ctypes
import os

_MONOTONIC, _ABSOLUTE = 1, 1  # CLOCK_MONOTONIC, which time.perf_counter reads; TFD_TIMER_ABSTIME


class _Spec(ctypes.Structure):
    """`struct itimerspec`: seconds and nanoseconds of the interval, then of the moment."""

    _fields_ = [(name, ctypes.c_long) for name in ("every_s", "every_ns", "at_s", "at_ns")]


class Timer:
    """The kernel's timerfd, readable when its moment has come.

    An event loop's own timers are whole milliseconds, rounded up: every request would leave up to one too late, which
    is as long as an answer takes. (Python has timerfd from 3.13 on.)
    """

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._spec = _Spec()
        self.fd: int = self._libc.timerfd_create(_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
        if self.fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create failed")

    def set(self, at: float) -> None:
        """Ring at this moment of `time.perf_counter`, at once where it has passed."""
        self._spec.at_s = int(at)
        self._spec.at_ns = max(int((at - int(at)) * 1e9), 1)  # 0 and 0 would turn it off
        if self._libc.timerfd_settime(self.fd, _ABSOLUTE, ctypes.byref(self._spec), None):
            raise OSError(ctypes.get_errno(), "timerfd_settime failed")

    def quiet(self) -> None:
        """Take note that it rang."""
        try:
            os.read(self.fd, 8)
        except BlockingIOError:  # it was set anew meanwhile
            pass

    def close(self) -> None:
        """Give it back."""
        os.close(self.fd)
