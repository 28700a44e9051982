"""Who gets alerts in the tests: a web server and a mail server on loopback."""

from __future__ import annotations

import http.server
import json
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any

from tests.servers import free_port


@dataclass
class Receiver:
    """A web server that can be unwell (`answer` other than 204) or gone (`stop`)."""

    port: int = field(default_factory=free_port)
    answer: int = 204
    headers: list[dict[str, str]] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    _server: http.server.ThreadingHTTPServer | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook/topsecret-path"

    @property
    def got(self) -> list[Any]:
        """What it accepted, oldest first."""
        return [json.loads(body) for body in self.bodies]

    def events(self) -> list[tuple[str, str]]:
        """(kind, event) of each CloudEvent."""
        return [(e["data"]["kind"], e["data"]["event"]) for e in self.got]

    def start(self) -> None:
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def log_message(self, *_words: object) -> None:
                pass

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if receiver.answer < 300:
                    receiver.headers.append(dict(self.headers))
                    receiver.bodies.append(body)
                self.send_response(receiver.answer)
                self.send_header("Content-Length", "0")
                self.end_headers()

            do_PUT = do_POST  # noqa: N815

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def stop(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._thread.join()
            self._server.server_close()
            self._server = None


@contextmanager
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    made.start()
    try:
        yield made
    finally:
        made.stop()


@dataclass
class Mailbox:
    """What a mail server got: sender, recipients and letter of each."""

    port: int = 0
    letters: list[tuple[str, list[str], EmailMessage]] = field(default_factory=list)
    logins: list[str] = field(default_factory=list)
    refuse: str = ""


@contextmanager
def mail_server() -> Iterator[Mailbox]:
    """A server that speaks as much SMTP as a client that is served well needs."""
    box = Mailbox()

    class Handler(socketserver.StreamRequestHandler):
        def say(self, text: str) -> None:
            self.wfile.write(text.encode() + b"\r\n")

        def handle(self) -> None:
            sender, recipients = "", list[str]()
            self.say("220 test")
            for line in self.rfile:
                words = line.decode().strip()
                verb = words[:4].upper()
                if verb == "EHLO":
                    self.say("250-test\r\n250 AUTH PLAIN")
                elif verb == "AUTH":
                    box.logins.append(words)
                    self.say("235 in")
                elif verb == "MAIL":
                    sender = words.partition("<")[2].partition(">")[0]
                    self.say("250 ok")
                elif verb == "RCPT":
                    to = words.partition("<")[2].partition(">")[0]
                    refused = bool(box.refuse) and box.refuse in to
                    if not refused:
                        recipients.append(to)
                    self.say("550 no such mailbox" if refused else "250 ok")
                elif verb == "DATA":
                    self.say("354 go on")
                    body = b""
                    while (part := self.rfile.readline()) != b".\r\n":
                        body += part.removeprefix(b".") if part.startswith(b"..") else part
                    letter = message_from_bytes(body, policy=policy.default)
                    assert isinstance(letter, EmailMessage)
                    box.letters.append((sender, recipients, letter))
                    self.say("250 ok")
                elif verb == "QUIT":
                    self.say("221 bye")
                    return
                else:
                    self.say("250 ok")

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        box.port = int(server.server_address[1])
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield box
        finally:
            server.shutdown()
            thread.join()
