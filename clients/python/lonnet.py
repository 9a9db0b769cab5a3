"""Ask the hosts of a lonnet network, and serve their requests.

A program that asks::

    import lonnet

    with lonnet.Client("/var/lib/lonnet/run", "beta", timeout=10) as beta:
        print(beta.reply("ping").text)                      # Answer: the other host's
        outcome = beta.critical("pay:12.50", key="order-4711")
        if isinstance(outcome, lonnet.Delayed):
            print("beta is away: it is on disk here, and will be sent")
        for outcome in beta.map(f"log:{n}" for n in range(1000)):
            ...                                             # many ahead of their answers

Every request has one outcome: ``Answer``, ``Lost``, ``Delayed``, ``Failed``, ``Refused`` or
``Error``. What has none is an exception: ``BadRequest``, ``Away``, ``Broken``, ``Timeout``.

A program that serves, for ``socket = "/run/app.sock"`` in the other host's ``lonnet.toml``::

    def pay(request):
        if busy():
            raise lonnet.Later          # a critical message is kept, and comes again
        return "paid " + request.text

    lonnet.serve_tagged("/run/app.sock", pay)     # with format = "tagged"

``serve_lines`` is the same for the line form, ``worker_tagged`` for ``worker = [...]``.

What a handler returns is the answer: ``str`` or ``bytes``; ``None`` is an empty line (of which a
message that was stored goes to ``failed/`` at its sender: better say ``"ok"``). An exception is
answered ``error:`` with its type and text. So is ``sys.exit()``; then nothing more is read, what was
read is answered, and the program ends with that code.

Requests and answers are bytes without a newline. Where text is given it is UTF-8; bytes that are
none come and go as ``surrogateescape`` has it, so that nothing is lost.
"""

import collections
import concurrent.futures
import errno
import logging
import os
import re
import select
import signal
import socket
import stat
import sys
import threading
import time
from dataclasses import dataclass
from typing import Any, Callable, Deque, Iterable, Iterator, List, Optional, Tuple, Union

__version__ = "0.1.0"
__all__ = ["Client", "Outcome", "Answer", "Lost", "Delayed", "Failed", "Refused", "Error",
           "LonnetError", "BadRequest", "Away", "Broken", "Timeout", "Request", "Later", "Server",
           "serve_lines", "serve_tagged", "worker_tagged"]

Text = Union[str, bytes]

#: Most requests that are sent ahead of their answers, and most bytes of them.
MAX_AHEAD, MAX_AHEAD_BYTES = 10_000, 4 * 1024 * 1024
#: Longest line in bytes that any configuration allows; a handler's line has words before it.
MAX_LINE = 16 * 1024 * 1024 + 1024

_READ = 64 * 1024
_KEY = re.compile(rb"[A-Za-z0-9._-]{1,64}")
_log = logging.getLogger("lonnet")


def _bytes(text: Text) -> bytes:
    if isinstance(text, str):
        return text.encode("utf-8", "surrogateescape")
    if isinstance(text, (bytes, bytearray, memoryview)):
        return bytes(text)
    # bytes(3) would be three zeros.
    raise TypeError(f"want str or bytes, not {type(text).__name__}")


# ------------------------------------------------------------------------------------- outcomes

@dataclass(frozen=True)
class Outcome:
    """What became of a request; ``raw`` is the answer line, as it came."""

    raw: bytes

    @property
    def text(self) -> str:
        """The answer line as text; of an ``Error``, what is behind ``error:``."""
        return self.raw.decode("utf-8", "surrogateescape")

    @staticmethod
    def of(raw: bytes) -> "Outcome":
        """What an answer line means. The line is all there is to tell by."""
        if raw.startswith(b"error:"):
            return Error(raw)
        return _WORDS.get(raw, Answer)(raw)


class Answer(Outcome):
    """The other host has answered."""


class Lost(Outcome):
    """There is no answer to be had; the other host may have done it all the same."""


class Delayed(Outcome):
    """The critical message is on disk here, and will be sent."""


class Failed(Outcome):
    """The critical message could not even be kept; lonc.log says why."""


class Refused(Outcome):
    """The other host does not do this (``unknown_cmd``), or not for this host."""


class Error(Outcome):
    """It was no request, or nobody knows what became of it at the other host."""

    @property
    def text(self) -> str:
        return self.raw[len(b"error:"):].decode("utf-8", "surrogateescape")


_WORDS = {b"con_lost": Lost, b"con_delayed": Delayed, b"con_failed": Failed,
          b"refused": Refused, b"unknown_cmd": Refused}


class LonnetError(Exception):
    """There is no outcome. ``may_have_been_taken``: the other host may have the request."""

    may_have_been_taken = False


class BadRequest(LonnetError, ValueError):
    """This cannot be a request; nothing was sent."""


class Away(LonnetError, ConnectionError):
    """No connection could be made, or not in time: the broker is away. Nothing was sent."""


class Broken(LonnetError, ConnectionError):
    """The connection ended when the request, or a part of it, had been sent."""

    may_have_been_taken = True


class Timeout(LonnetError, TimeoutError):
    """There was no answer in time. The connection was given up; the next request makes another."""

    may_have_been_taken = True


def _checked(request: Text) -> bytes:
    line = _bytes(request)
    if not line:
        raise BadRequest("the request is empty")
    if b"\n" in line:
        raise BadRequest("a request is one line")
    return line


# --------------------------------------------------------------------------------------- asking

class _Lines:
    """Bytes to lines, without looking at a byte twice."""

    def __init__(self) -> None:
        self.ready: Deque[bytes] = collections.deque()
        self._parts: List[bytes] = []
        self._held = 0

    def push(self, data: bytes) -> None:
        first, newline, rest = data.partition(b"\n")
        self._parts.append(first)
        self._held += len(first)
        if self._held > MAX_LINE:
            raise ValueError("a line is longer than any may be")
        if newline:
            self.ready.append(b"".join(self._parts))
            *lines, last = rest.split(b"\n")
            self.ready.extend(lines)
            self._parts, self._held = [last], len(last)


class _Connection:
    """One connection, and what waits for its answer on it."""

    def __init__(self, path: str, deadline: Optional[float]) -> None:
        self.lines = _Lines()
        self.waiting: Deque[int] = collections.deque()
        self.waiting_bytes = 0
        self.written = 0
        self._out = bytearray()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._socket.setblocking(False)
            self._connect(path, deadline)
        except BaseException:
            self._socket.close()
            raise

    def _connect(self, path: str, deadline: Optional[float]) -> None:
        while True:
            error = self._socket.connect_ex(path)
            if not error:
                return
            # The queue of connections is full, and there is nothing to poll for.
            if error not in (errno.EAGAIN, errno.EINTR):
                raise OSError(error, os.strerror(error))
            if deadline is not None and time.monotonic() >= deadline:
                raise OSError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))
            time.sleep(0.01)

    def close(self) -> None:
        self._socket.close()

    def is_idle(self) -> bool:
        """Whether the broker has neither closed nor said what nobody asked for."""
        try:
            self._socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return not (self.waiting or self.lines.ready)
        except OSError:
            pass
        return False

    def has_room(self) -> bool:
        return len(self.waiting) < MAX_AHEAD and self.waiting_bytes < MAX_AHEAD_BYTES

    def send(self, line: bytes) -> None:
        self._out += line
        self._out += b"\n"
        self.waiting.append(len(line))
        self.waiting_bytes += len(line)

    def next_answer(self, deadline: Optional[float]) -> bytes:
        while not self.lines.ready:
            self._turn(deadline)
        if not self.waiting:
            raise Broken("an answer came that nobody asked for")
        self.waiting_bytes -= self.waiting.popleft()
        return self.lines.ready.popleft()

    def _turn(self, deadline: Optional[float]) -> None:
        """Waits until something can be read or written, and does it."""
        poll = select.poll()
        poll.register(self._socket, select.POLLIN | (select.POLLOUT if self._out else 0))
        left = None if deadline is None else (deadline - time.monotonic()) * 1000
        if left is not None and left <= 0:
            raise Timeout("no answer in time")
        # In whole milliseconds: one more, rather than too early.
        if not poll.poll(None if left is None else int(left) + 1):
            return
        self._write()
        try:
            data = self._socket.recv(_READ)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            raise Broken(str(error)) from error
        if not data:
            raise Broken("the broker closed without an answer")
        try:
            self.lines.push(data)
        except ValueError as error:
            raise Broken(str(error)) from error

    def _write(self) -> None:
        while self._out:
            try:
                count = self._socket.send(memoryview(self._out)[:_READ])
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                # It may have answered before it closed: what was said is read first.
                self._out.clear()
                return
            self.written += count
            del self._out[:count]


class Client:
    """One peer, asked over one connection at a time.

    ``run_dir``: the ``run_dir`` of ``lonnet.toml``; ``peer``: the other host's id; ``timeout``:
    seconds for each request, its connection included (``None``: for ever). A connection that went
    away between two requests is made anew in silence. Not to be shared between threads: each has
    a client of its own.
    """

    def __init__(self, run_dir: Union[str, "os.PathLike[str]"], peer: str,
                 timeout: Optional[float] = 60.0) -> None:
        self.path = os.path.join(os.fspath(run_dir), peer)
        self.timeout = timeout
        self._connection: Optional[_Connection] = None

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def close(self) -> None:
        """Ends the connection; another request would make one."""
        if self._connection:
            self._connection.close()
            self._connection = None

    def reply(self, request: Text, timeout: Optional[float] = None) -> Outcome:
        """Sends one request and waits for its answer."""
        return self._ask(_checked(request), self._deadline(timeout))

    def critical(self, request: Text, key: Optional[Text] = None,
                 timeout: Optional[float] = None) -> Outcome:
        """Sends one critical request: it arrives, even if the other host is away today.

        With a ``key`` (1 to 64 of ``A-Z a-z 0-9 . _ -``) the other host runs it once, however often
        it is sent, so that it is sent once more by itself over another connection if the first
        broke, and may be sent again after any exception.
        """
        line, deadline = _checked(request), self._deadline(timeout)
        if line.startswith(b"critical:"):
            line = _checked(line[len(b"critical:"):])
        if line.startswith(b"critical;"):
            if key is not None:
                raise BadRequest("it has a key already")
        elif key is None:
            return self._ask(b"critical:" + line, deadline)
        else:
            word = _bytes(key)
            if not _KEY.fullmatch(word):
                raise BadRequest("a key is 1 to 64 of A-Z a-z 0-9 . _ -")
            line = b"critical;key=" + word + b":" + line
        try:
            return self._ask(line, deadline)
        except Broken as broken:
            try:
                return self._ask(line, deadline)
            except Away:
                # "Nothing was sent" is true of the second try alone.
                raise broken from None

    def map(self, requests: Iterable[Text], timeout: Optional[float] = None) -> Iterator[Outcome]:
        """The outcomes of many requests, in order; many are sent ahead of their answers.

        Each answer may take ``timeout`` after the one before. An exception is that of the first
        request without an outcome; those behind it that were sent may have been taken, too.
        """
        connection, done = self._ready(self._deadline(timeout)), False
        source = iter(requests)
        bad: Optional[BadRequest] = None
        try:
            while True:
                while bad is None and connection.has_room():
                    request = next(source, None)
                    if request is None:
                        break
                    try:
                        connection.send(_checked(request))
                    except BadRequest as error:
                        bad = error
                if not connection.waiting:
                    break
                yield Outcome.of(connection.next_answer(self._deadline(timeout)))
            done = True
        finally:
            self._keep(connection, done)
        if bad:
            raise bad

    def _deadline(self, timeout: Optional[float]) -> Optional[float]:
        timeout = self.timeout if timeout is None else timeout
        return None if timeout is None else time.monotonic() + timeout

    def _ask(self, line: bytes, deadline: Optional[float]) -> Outcome:
        for last in (False, True):
            connection, done = self._ready(deadline), False
            before = connection.written
            try:
                connection.send(line)
                outcome = Outcome.of(connection.next_answer(deadline))
                done = True
                return outcome
            except Broken:
                # It ended before it took a byte: nobody has the request.
                if last or connection.written > before:
                    raise
            finally:
                self._keep(connection, done)
        raise AssertionError("the second try returns or raises")

    def _ready(self, deadline: Optional[float]) -> _Connection:
        connection, self._connection = self._connection, None
        if connection:
            if connection.is_idle():
                return connection
            connection.close()
        try:
            return _Connection(self.path, deadline)
        except OSError as error:
            raise Away(f"connect {self.path}: {error.strerror or error}") from error

    def _keep(self, connection: _Connection, whole: bool) -> None:
        """The connection stays for the next request, unless answers may still come on it."""
        if whole and self._connection is None:
            self._connection = connection
        else:
            connection.close()


# -------------------------------------------------------------------------------------- serving

class Later(Exception):
    """Raised by a handler: not now. A critical message stays with its sender and comes again; any
    other request, and every one of the line form, is answered ``error:``."""


@dataclass(frozen=True)
class Request:
    """What a handler is asked.

    ``sender``: the asking host's id; ``id``: what names a critical message for ever, the same when
    it comes again; ``key``: the asking program's own key. ``None`` where there is none, and all
    three in the line form, which tells nothing but the request itself, ``raw``.
    """

    tag: Optional[int]
    sender: Optional[str]
    id: Optional[str]
    key: Optional[str]
    raw: bytes

    @property
    def text(self) -> str:
        """The request as text."""
        return self.raw.decode("utf-8", "surrogateescape")

    @property
    def is_critical(self) -> bool:
        """Whether it is a critical message (of the secure wire: the classic one does not say)."""
        return self.id is not None

    @staticmethod
    def parse(line: bytes) -> "Request":
        """Reads ``<tag> <from> <id> <key> <request>``; ``ValueError`` for what is none."""
        words = line.split(b" ", 4)
        if len(words) != 5 or not words[0].isdigit() or not all(words[1:4]):
            raise ValueError(f"no request of the tagged form: {line[:60]!r}")
        sender, message, key = (None if word == b"-" else word.decode("ascii", "replace")
                                for word in words[1:4])
        return Request(int(words[0]), sender, message, key, words[4])


Handler = Callable[[Request], Optional[Text]]


class _Ending:
    """Whether a handler has ended the program: by what, and what stops the reading then."""

    def __init__(self, stop: Callable[[], None]) -> None:
        self.error: Optional[BaseException] = None
        self._stop = stop
        self._lock = threading.Lock()

    def begin(self, error: BaseException) -> None:
        with self._lock:
            first, self.error = self.error is None, self.error or error
        if first:
            self._stop()

    def finish(self) -> None:
        """Ends the program, if a handler has; to be called when all is answered."""
        if self.error is not None:
            raise self.error


def _told(error: BaseException) -> bytes:
    """The answer that tells of an exception."""
    try:
        text = str(error)
    except Exception:
        text = ""
    words = type(error).__name__ + (": " + text if text.strip() else "")
    return b"error:" + " ".join(words.split()).encode("utf-8", "backslashreplace")


def _answer(handler: Handler, request: Request, ending: _Ending) -> Optional[bytes]:
    """What the handler answers, surely in one line; ``None``: later."""
    try:
        said = handler(request)
        answer = b"" if said is None else _bytes(said)
    except Later:
        return None
    except Exception as error:  # whatever it is, the one who asks is told
        _log.exception("serve %r", request.raw[:60])
        answer = _told(error)
    except BaseException as error:  # sys.exit, above all
        _log.error("serve %r: the handler ends the program: %r", request.raw[:60], error)
        answer = _told(error)
        ending.begin(error)
    if b"\n" in answer:
        _log.error("serve %r: the answer has a newline in it", request.raw[:60])
        return b"error:the handler's answer has a newline in it"
    return answer


class _Out:
    """Where answers go, each whole, from any thread."""

    def __init__(self, write: Callable[[bytes], Any]) -> None:
        self._write = write
        self._lock = threading.Lock()
        self._broken = False

    def line(self, line: bytes) -> None:
        with self._lock:
            if self._broken:
                return
            try:
                self._write(line + b"\n")
            except OSError as error:
                # Who asked has gone. What was not answered, lond settles.
                self._broken = True
                _log.info("answer: %s", error)


def _serve_tagged(lines: Iterator[bytes], out: _Out, handler: Handler, ending: _Ending,
                  threads: int) -> None:
    """Serves one connection of the tagged form to its end; returns when all is answered."""
    room = threading.BoundedSemaphore(max(64, 4 * threads))

    def one(request: Request) -> None:
        try:
            answer = _answer(handler, request, ending)
            tag = b"%d" % request.tag
            out.line(tag + b"!later" if answer is None else tag + b" " + answer)
        finally:
            room.release()

    with concurrent.futures.ThreadPoolExecutor(threads, "lonnet") as pool:
        for line in lines:
            request = Request.parse(line)
            room.acquire()
            pool.submit(one, request)


def _serve_lines(lines: Iterator[bytes], out: _Out, handler: Handler, ending: _Ending,
                 _threads: int) -> None:
    """Serves one connection of the line form to its end."""
    for line in lines:
        answer = _answer(handler, Request(None, None, None, None, line), ending)
        out.line(b"error:not now" if answer is None else answer)


def _whole_lines(fd: int, stop: Optional[int] = None) -> Iterator[bytes]:
    """The lines up to the end, or until ``stop`` is closed at its other end: then those that were
    read by then. What is left without a newline is none."""
    lines = _Lines()
    poll = select.poll()
    for each in (fd, stop):
        if each is not None:
            poll.register(each, select.POLLIN)
    while True:
        while lines.ready:
            yield lines.ready.popleft()
        if any(ready == stop for ready, _ in poll.poll()):
            return
        data = os.read(fd, _READ)
        if not data:
            return
        lines.push(data)


class Server:
    """A handler's Unix socket. ``run`` serves until ``close``, or until the handler says
    ``sys.exit()``; then what was read is answered."""

    def __init__(self, path: Union[str, "os.PathLike[str]"], handler: Handler, tagged: bool,
                 threads: int = 16, mode: int = 0o660) -> None:
        self.path = os.fspath(path)
        self._handler, self._threads = handler, threads
        self._serve = _serve_tagged if tagged else _serve_lines
        self._closing = False
        self._ending = _Ending(self.close)
        self._lock = threading.Lock()
        self._live: "dict[socket.socket, threading.Thread]" = {}
        self._listener, self._inode = _listen(self.path, mode)

    def run(self) -> None:
        """Serves until ``close``. What a handler has ended the program by is raised here, when all
        is answered."""
        while not self._closing:
            try:
                connection, _ = self._listener.accept()
            except OSError as error:
                if self._closing:
                    break
                if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS):
                    _log.error("accept on %s: %s", self.path, error)
                    time.sleep(1)
                continue
            thread = threading.Thread(target=self._one, args=(connection,), daemon=True)
            with self._lock:
                self._live[connection] = thread
            thread.start()
        self._finish()
        self._ending.finish()

    def close(self) -> None:
        """Ends ``run``; may be called from a signal handler or another thread."""
        self._closing = True
        try:
            self._listener.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass

    def _finish(self) -> None:
        self._listener.close()
        try:
            if os.stat(self.path).st_ino == self._inode:
                os.unlink(self.path)
        except OSError:
            pass
        with self._lock:
            live = list(self._live.items())
        for connection, thread in live:
            try:
                connection.shutdown(socket.SHUT_RD)
            except OSError:
                pass
            thread.join()

    def _one(self, connection: socket.socket) -> None:
        try:
            with connection:
                lines, out = _whole_lines(connection.fileno()), _Out(connection.sendall)
                self._serve(lines, out, self._handler, self._ending, self._threads)
        except (OSError, ValueError) as error:
            _log.error("serve a connection of %s: %s", self.path, error)
        finally:
            with self._lock:
                self._live.pop(connection, None)


def _listen(path: str, mode: int) -> Tuple[socket.socket, int]:
    """Listens at ``path``. The name appears when the socket is ready, in place of one that a
    program left which has ended; a socket that is served is not taken."""
    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            raise OSError(errno.EEXIST, "is no socket", path)
        with socket.socket(socket.AF_UNIX) as probe:
            probe.setblocking(False)
            if probe.connect_ex(path) != errno.ECONNREFUSED:
                raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE), path)
    except FileNotFoundError:
        pass
    new = os.path.join(os.path.dirname(path), f".{os.getpid()}")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if os.path.lexists(new):
            os.unlink(new)
        listener.bind(new)
        os.chmod(new, mode)
        listener.listen(128)
        inode = os.stat(new).st_ino
        os.rename(new, path)
    except BaseException:
        listener.close()
        raise
    return listener, inode


def _run(server: Server) -> None:
    """Serves until TERM or an interrupt, and answers then what was read."""
    mine = threading.current_thread() is threading.main_thread()
    mine = mine and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    if mine:
        signal.signal(signal.SIGTERM, lambda *_: server.close())
    try:
        server.run()
    except KeyboardInterrupt:
        server.close()
        server._finish()
    finally:
        if mine:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def serve_lines(path: Union[str, "os.PathLike[str]"], handler: Handler, mode: int = 0o660) -> None:
    """Serves the line form on a Unix socket, a thread for each connection, until TERM."""
    _run(Server(path, handler, False, mode=mode))


def serve_tagged(path: Union[str, "os.PathLike[str]"], handler: Handler, threads: int = 16,
                 mode: int = 0o660) -> None:
    """Serves the tagged form on a Unix socket until TERM: ``threads`` requests of each connection
    at once, each answered when it is done."""
    _run(Server(path, handler, True, threads, mode))


def worker_tagged(handler: Handler, threads: int = 16) -> None:
    """Serves the tagged form on standard input and output, for ``worker = [...]``, until its end.

    What the handler and programs that it starts print goes to standard error instead, so that it
    cannot come between the answers; they read nothing from standard input.
    """
    sys.stdout.flush()
    read, write = os.dup(0), os.dup(1)
    stop, stopping = os.pipe()
    ending = _Ending(lambda: os.close(stopping))
    os.dup2(2, 1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)

    def put(data: bytes) -> None:
        while data:
            data = data[os.write(write, data):]

    try:
        _serve_tagged(_whole_lines(read, stop), _Out(put), handler, ending, threads)
    finally:
        for each in (read, write, stop):
            os.close(each)
    if ending.error is None:
        os.close(stopping)
    ending.finish()
