"""A small OpenAI-compatible server over real HTTP that can fail in every way a test asks for."""

import json
import threading
import time
from collections import Counter
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def answer(text, finish_reason="stop", refusal=None, usage=(100, 50)):
    message = {"role": "assistant", "content": text, "refusal": refusal}
    return {
        "id": "x",
        "object": "chat.completion",
        "created": 0,
        "model": "m",
        "choices": [{"index": 0, "message": message, "finish_reason": finish_reason}],
        "usage": usage and dict(zip(("prompt_tokens", "completion_tokens"), usage), total_tokens=sum(usage)),
    }


class Behaviour:
    """What the server does and saw. `faults` maps the number of a request (from 0) to what goes wrong with it:

    (status, headers, message), "hang", "close", "cut" (the body breaks off), "junk" (200 without a reply), or an
    answer. `refuse(body)` may give the message of a 400. Every request without a fault is answered and so paid for.
    """

    def __init__(self, faults=None, refuse=None, delay=0.0, stop_after=None):
        self.faults, self.refuse, self.delay, self.stop_after = faults or {}, refuse, delay, stop_after
        self.lock, self.release = threading.Lock(), threading.Event()
        self.requests, self.active, self.most = [], 0, 0
        self.keys, self.paid, self.closed_until, self.early = set(), Counter(), 0.0, 0

    def fault(self, number, body):
        return self.faults.get(number)

    def reply(self, body):
        return f"reply to {body['messages'][0]['content']}"


@contextmanager
def serving(behaviour, port=0):
    """The address of a running server, without a model's name."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version, wbufsize = "HTTP/1.1", 65_536  # one packet an answer

        def log_message(self, *_):
            pass

        def send(self, status, payload, headers=None, cut=0):
            data = json.dumps(payload).encode()
            self.send_response(status)
            for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data[: len(data) - cut])
            self.close_connection |= cut > 0

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            seen = behaviour
            with seen.lock:
                number = len(seen.requests)
                seen.requests.append(body)
                seen.keys.add(self.headers["Authorization"])
                seen.early += time.monotonic() < seen.closed_until
                seen.active += 1
                seen.most = max(seen.most, seen.active)
            try:
                self.respond(seen, number, body)
            finally:
                with seen.lock:
                    seen.active -= 1

        def respond(self, seen, number, body):
            fault = seen.fault(number, body)
            if self.path != "/v1/chat/completions":
                return self.send(404, {"error": {"message": "no such path"}})
            if fault == "hang":
                seen.release.wait(300)
                fault = "close"
            if fault == "close" or (seen.stop_after is not None and number >= seen.stop_after):
                self.close_connection = True
                return None
            if isinstance(fault, tuple):
                status, headers, said = fault
                if "Retry-After" in headers:
                    seen.closed_until = time.monotonic() + float(headers["Retry-After"])
                error = said if isinstance(said, dict) else {"message": said}
                return self.send(status, {"error": error}, headers)
            if fault == "junk":
                return self.send(200, {"error": {"message": "the upstream provider failed"}})
            if seen.refuse and (said := seen.refuse(body)):
                return self.send(400, {"error": {"message": said}})
            time.sleep(seen.delay)
            if fault != "cut":
                with seen.lock:
                    seen.paid[body["messages"][0]["content"]] += 1
            return self.send(
                200, fault if isinstance(fault, dict) else answer(seen.reply(body)), cut=20 if fault == "cut" else 0
            )

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 64

        def handle_error(self, *_):
            pass  # clients that are killed in mid-request are part of the tests

    server = Server(("127.0.0.1", port), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    finally:
        behaviour.release.set()
        server.shutdown()
        server.server_close()
        thread.join()
