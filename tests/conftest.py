"""What all tests start from."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

# A shell ignores Ctrl-C in what it runs in the background, and every process started from there inherits that: tests
# that stop a program by it would wait in vain.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def user_without_models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Tests mean the embedded model where they name none, whatever the user who runs them has chosen."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("HBI_BUNDLE", raising=False)
        for kind in ("CONFIG", "DATA"):
            patch.setenv(f"XDG_{kind}_HOME", str(tmp_path_factory.mktemp(kind.lower())))
        yield
