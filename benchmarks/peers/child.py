"""An object in a process of its own: made there, asked there, one question at a time.

Thread pools of several runtimes in one process disturb each other, and a library that crashes takes its process along.
A fresh interpreter each (spawn): a fork would copy threads' locks without the threads.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from fcnedge.runtime.cuda.driver import first_line
from fcnedge.runtime.errors import UserError

_GRACE_S = 5.0


class ChildError(UserError):
    """What the child was asked for failed, or it is gone; one sentence."""


class Child:
    """A process that holds `make(*args, progress)`; `call` has one of its methods run there.

    make, args and results are pickled. progress: a function of one whole number, which `call` hands on.
    What the child's libraries print is dropped: failures arrive as ChildError.
    """

    def __init__(self, make: Callable[..., Any], *args: Any):
        context = multiprocessing.get_context("spawn")
        self._pipe, other = context.Pipe()
        self._process = context.Process(target=_serve, args=(other,), daemon=True)
        self._process.start()
        other.close()
        try:
            self._ask((make, args), lambda done: None)
        except ChildError:
            self.close()
            raise

    def call(self, method: str, *args: Any, progress: Callable[[int], None] = lambda done: None) -> Any:
        """The answer of that method. Raises ChildError."""
        return self._ask((method, args), progress)

    def close(self) -> None:
        """End the process; more than once does no harm."""
        self._pipe.close()  # it reads the end of its questions and leaves
        self._process.join(_GRACE_S if self._process.exitcode is None else 0)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()

    def _ask(self, question: tuple[Any, tuple], progress: Callable[[int], None]) -> Any:
        try:
            self._pipe.send(question)
            while True:
                kind, value = self._pipe.recv()
                if kind == "done":
                    return value
                if kind == "failed":
                    raise ChildError(value)
                progress(value)
        except (EOFError, OSError) as error:
            self.close()
            code = self._process.exitcode
            how = f"was ended by signal {-code}" if code is not None and code < 0 else f"ended with exit code {code}"
            raise ChildError(f"its process {how}; a lack of memory or a crash of its library are likely.") from error
        except BaseException:  # an interrupt: the child is deep in its work and hears nothing
            self._process.kill()
            self._process.join()
            raise


def _serve(pipe: Connection) -> None:
    """What the child does: the first question makes the object, the others are for it."""
    with contextlib.suppress(ValueError):
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which ends us
    _silence()

    def progress(done: int) -> None:
        pipe.send(("progress", done))

    held: Any = None
    while True:
        try:
            word, args = pipe.recv()
        except (EOFError, OSError):
            os._exit(0)  # without the libraries' own farewells, some of which hang or crash
        try:
            if held is None:
                held, answer = word(*args, progress), None
            else:
                answer = getattr(held, word)(*args)
        except UserError as error:
            pipe.send(("failed", str(error)))
        except Exception as error:  # a peer raises whatever it likes; the row says what
            pipe.send(("failed", f"{type(error).__name__}: {first_line(error)}."))
        else:
            pipe.send(("done", answer))


def _silence() -> None:
    """File descriptors 1 and 2: libraries in C++ write there past every log level."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for descriptor in (1, 2):
        os.dup2(nowhere, descriptor)
    os.close(nowhere)
