"""What all tests start from."""

from __future__ import annotations

import signal

# A shell ignores Ctrl-C in what it runs in the background, and every process started from there inherits that: tests
# that stop a program by it would wait in vain.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
