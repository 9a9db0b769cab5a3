"""The client against a broker that a thread plays: python3 -m unittest, no daemon needed."""

import os
import socket
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
import unittest

import lonnet

PATIENCE = 30


def line_of(stream):
    with stream.makefile("rb") as read:
        return read.readline().rstrip(b"\n")


def echo(stream):
    with stream, stream.makefile("rb") as read:
        try:
            for line in read:
                stream.sendall(line)
        except ConnectionError:
            pass


class Asking(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.run_dir = folder.name
        self.listener = socket.socket(socket.AF_UNIX)
        self.addCleanup(self.listener.close)
        self.listener.bind(os.path.join(folder.name, "there"))
        self.listener.listen(5)
        self.listener.settimeout(PATIENCE)

    def broker(self, play):
        """Runs `play`, which gets a function that takes up the next connection."""

        def accept():
            stream = self.listener.accept()[0]
            stream.settimeout(PATIENCE)
            return stream

        thread = threading.Thread(target=play, args=(accept,), daemon=True)
        thread.start()
        self.addCleanup(thread.join, PATIENCE)

    def client(self):
        client = lonnet.Client(self.run_dir, "there", timeout=PATIENCE)
        self.addCleanup(client.close)
        return client

    def test_each_answer_line_has_its_outcome(self):
        for raw, kind, text in [
            (b"con_lost", lonnet.Lost, "con_lost"), (b"con_delayed", lonnet.Delayed, "con_delayed"),
            (b"con_failed", lonnet.Failed, "con_failed"), (b"refused", lonnet.Refused, "refused"),
            (b"unknown_cmd", lonnet.Refused, "unknown_cmd"), (b"error:no", lonnet.Error, "no"),
            (b"error", lonnet.Answer, "error"), (b"", lonnet.Answer, ""),
            (b"\xff\r", lonnet.Answer, "\udcff\r"),
        ]:
            outcome = lonnet.Outcome.of(raw)
            self.assertIs(type(outcome), kind)
            self.assertEqual((outcome.raw, outcome.text), (raw, text))

    def test_bytes_pass_unchanged_and_prefixes_are_put_once(self):
        self.broker(lambda accept: echo(accept()))
        client = self.client()
        for sent, expected in [(b"a \xff\r", b"a \xff\r"), ("\udcff\u00e9", b"\xff\xc3\xa9")]:
            self.assertEqual(client.reply(sent).raw, expected)
        self.assertEqual(client.critical("x").raw, b"critical:x")
        self.assertEqual(client.critical("critical:x").raw, b"critical:x")
        self.assertEqual(client.critical("critical:x", key="k.1-A_b").raw, b"critical;key=k.1-A_b:x")
        self.assertEqual(client.critical("critical;key=a:x").raw, b"critical;key=a:x")
        long = "x" * (8 * 1024 * 1024)
        self.assertEqual(client.reply(long).text, long)

    def test_what_cannot_be_a_request_is_not_sent(self):
        self.broker(lambda accept: echo(accept()))
        client = self.client()
        for ask in [
            lambda: client.reply(""), lambda: client.reply("a\nb"), lambda: client.critical("critical:"),
            lambda: client.critical("x", key=""), lambda: client.critical("x", key="a b"),
            lambda: client.critical("x", key="k" * 65), lambda: client.critical("critical;key=a:x", key="b"),
        ]:
            with self.assertRaises(lonnet.BadRequest) as caught:
                ask()
            self.assertFalse(caught.exception.may_have_been_taken)
        self.assertEqual(client.reply("ping").text, "ping")

    def test_many_go_ahead_of_their_answers(self):
        def play(accept):
            echo(accept())
            echo(accept())

        self.broker(play)
        client = self.client()
        asked = [f"n{number}" for number in range(30_000)]
        self.assertEqual([outcome.text for outcome in client.map(asked)], asked)
        answers = []
        with self.assertRaises(lonnet.BadRequest):
            for outcome in client.map(["a", "b\n", "c"]):
                answers.append(outcome.text)
        self.assertEqual(answers, ["a"], "what was sent before is answered")
        # Whoever leaves in the middle gets nobody else's answers.
        for _ in client.map(asked):
            break
        self.assertEqual(client.reply("then").text, "then")

    def test_a_connection_that_went_between_two_requests_is_made_anew(self):
        # A request that comes between an answer and the close is another matter: it may be taken.
        closed = threading.Semaphore(0)

        def play(accept):
            for answer in (b"first\n", b"second\n"):
                with accept() as stream:
                    line_of(stream)
                    stream.sendall(answer)
                if answer == b"second\n":
                    self.listener.close()
                closed.release()

        self.broker(play)
        client = self.client()
        for answer in ("first", "second"):
            self.assertEqual(client.reply("ping").text, answer)
            self.assertTrue(closed.acquire(timeout=PATIENCE))
        with self.assertRaises(lonnet.Away) as caught:
            client.reply("ping")
        self.assertFalse(caught.exception.may_have_been_taken)

    def test_what_may_have_been_taken_is_sent_again_only_if_it_has_a_key(self):
        seen = []

        def play(accept):
            for last in (False, False, False, True):
                with accept() as stream:
                    seen.append(line_of(stream))
                    if last:
                        stream.sendall(b"done\n")

        self.broker(play)
        client = self.client()
        for ask in (lambda: client.reply("pay:1"), lambda: client.critical("pay:2")):
            with self.assertRaises(lonnet.Broken) as caught:
                ask()
            self.assertTrue(caught.exception.may_have_been_taken)
        self.assertEqual(client.critical("pay:3", key="k").text, "done")
        keyed = b"critical;key=k:pay:3"
        self.assertEqual(seen, [b"pay:1", b"critical:pay:2", keyed, keyed])

    def test_what_broke_and_finds_the_broker_away_then_may_have_been_taken(self):
        def play(accept):
            with accept() as stream:
                line_of(stream)
                os.unlink(self.listener.getsockname())

        for ask in (lambda client: client.critical("pay", key="k"),
                    lambda client: client.critical("critical;key=k:pay")):
            with self.subTest():
                self.setUp()
                self.broker(play)
                with self.assertRaises(lonnet.Broken) as caught:
                    ask(self.client())
                self.assertTrue(caught.exception.may_have_been_taken)

    def test_what_is_neither_text_nor_bytes_is_no_request(self):
        for request in (42, ["x"], None):
            with self.assertRaises(TypeError):
                self.client().reply(request)

    def test_a_late_answer_is_nobodys(self):
        def play(accept):
            late = accept()
            line_of(late)
            following = accept()
            try:
                late.sendall(b"late\n")
            except BrokenPipeError:
                pass
            echo(following)

        self.broker(play)
        client = self.client()
        with self.assertRaises(lonnet.Timeout) as caught:
            client.reply("slow", timeout=0.05)
        self.assertTrue(caught.exception.may_have_been_taken)
        self.assertEqual(client.reply("ping").text, "ping")

    def test_a_broker_that_takes_up_no_connection_is_waited_for_until_the_deadline(self):
        full = False
        while not full:
            waiting = socket.socket(socket.AF_UNIX)
            self.addCleanup(waiting.close)
            waiting.setblocking(False)
            full = waiting.connect_ex(self.listener.getsockname()) != 0
        with self.assertRaises(lonnet.Away) as caught:
            self.client().reply("ping", timeout=0.05)
        self.assertIn("timed out", str(caught.exception))


class Serving(unittest.TestCase):
    def test_a_socket_that_is_served_is_not_taken_and_one_that_was_left_is(self):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "app")
            with socket.socket(socket.AF_UNIX) as left:
                left.bind(path)
            server = lonnet.Server(path, lambda request: request.raw, False)
            with self.assertRaises(OSError):
                lonnet.Server(path, lambda request: request.raw, False)
            thread = threading.Thread(target=server.run, daemon=True)
            thread.start()
            with socket.socket(socket.AF_UNIX) as asking:
                asking.settimeout(PATIENCE)
                asking.connect(path)
                asking.sendall(b"one\n")
                self.assertEqual(line_of(asking), b"one")
            server.close()
            thread.join(PATIENCE)
            self.assertFalse(thread.is_alive() or os.path.exists(path))

    def served(self, script, sent, tagged=True):
        """What a worker, or a server of one connection, in a process of its own makes of what is
        sent; and its exit code."""
        script = "import sys, lonnet\n" + script
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "app")
            program = subprocess.Popen(
                [sys.executable, "-c", script, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL, env={**os.environ, "PYTHONPATH": os.path.dirname(lonnet.__file__)})
            self.addCleanup(program.kill)
            with program.stdin, program.stdout:
                if "worker_tagged" in script:
                    # Its input stays open: it must not wait for the end of that.
                    program.stdin.write(sent)
                    program.stdin.flush()
                    said = program.stdout.read()
                else:
                    with socket.socket(socket.AF_UNIX) as asking:
                        asking.settimeout(PATIENCE)
                        deadline = time.monotonic() + PATIENCE
                        while asking.connect_ex(path) and time.monotonic() < deadline:
                            time.sleep(0.01)
                        asking.sendall(sent)
                        with asking.makefile("rb") as read:
                            said = read.read()
            return said.splitlines(), program.wait(PATIENCE)

    def test_a_handler_that_ends_the_program_has_its_request_answered_and_those_that_were_read(self):
        handler = textwrap.dedent("""
            def serve(request):
                if request.raw.startswith(b"end"):
                    sys.exit(*map(int, request.text.split()[1:]))
                return request.raw
        """)
        tagged = b"1 a - - end 3\n2 a - - one\n"
        for ask, sent, answers, code in [
            ("worker_tagged(serve)", tagged, [b"1 error:SystemExit: 3", b"2 one"], 3),
            ("serve_tagged(sys.argv[1], serve)", tagged, [b"1 error:SystemExit: 3", b"2 one"], 3),
            ("serve_lines(sys.argv[1], serve)", b"end\none\n", [b"error:SystemExit", b"one"], 0),
            ("serve_lines(sys.argv[1], serve)", b"one\nend 3\n", [b"one", b"error:SystemExit: 3"], 3),
        ]:
            with self.subTest(ask):
                said, ended = self.served(handler + "lonnet." + ask, sent)
                self.assertEqual((sorted(said), ended), (sorted(answers), code))

    def test_what_a_handler_returns_is_the_answer_and_what_it_raises_is_told(self):
        class Odd(Exception):
            def __str__(self):
                raise RuntimeError("no text")

        def raising(error):
            raise error

        ending = lonnet._Ending(self.fail)
        request = lonnet.Request.parse(b"1 a - - x")
        for handler, answer in [
            (lambda _: None, b""), (lambda _: "", b""), (lambda _: "ok", b"ok"),
            (lambda _: b"\xff", b"\xff"), (lambda _: bytearray(b"x"), b"x"),
            (lambda _: 42, b"error:TypeError: want str or bytes, not int"),
            (lambda _: raising(ValueError("a\n b \n")), b"error:ValueError: a b"),
            (lambda _: raising(ValueError()), b"error:ValueError"),
            (lambda _: raising(ValueError("\ud800")), b"error:ValueError: \\ud800"),
            (lambda _: raising(Odd()), b"error:Odd"),
            (lambda _: "\ud800", b"error:UnicodeEncodeError: "),
            (lambda _: raising(lonnet.Later()), None),
        ]:
            with self.assertLogs("lonnet"):
                lonnet._log.error("so that there is a line")
                said = lonnet._answer(handler, request, ending)
            self.assertEqual(said[:len(answer)] if answer and answer.endswith(b" ") else said, answer)

    def test_what_is_no_request_of_the_tagged_form_is_told(self):
        request = lonnet.Request.parse(b"7 a - k  x ")
        self.assertEqual((request.tag, request.sender, request.id, request.key, request.raw),
                         (7, "a", None, "k", b" x "))
        for line in [b"", b"x a - - y", b"1 a - -", b"1  - - y", b"-1 a - - y"]:
            with self.assertRaises(ValueError):
                lonnet.Request.parse(line)


if __name__ == "__main__":
    unittest.main()
