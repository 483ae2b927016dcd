"""A frontend of one's own in Python: pyzmq and msgpack, nothing of vllm-ts.

    vllm-ts serve --frontend-address /tmp/vllm        # in one shell
    python3 examples/frontend.py /tmp/vllm "Once upon a time"

Adds a request from text, streams its text, then begins a long one and aborts it.
docs/protocol.md is what it follows.
"""

import json
import os
import pathlib
import struct
import sys

import msgpack
import zmq

FORMATS = {"u8": "B", "i32": "i", "u32": "I", "f32": "f", "f64": "d", "u64": "Q"}
FINISH_REASONS = ["none", "stop", "length", "abort", "error", "repetition"]
CREDIT_BYTES = 1 << 20


def encode(message, **columns):
    """One frame, or two with columns given as name=(type, values)."""
    if not columns:
        return [msgpack.packb(message)]
    table, body = [], b""
    for name, (kind, values) in columns.items():
        body += bytes(-len(body) % 8)
        table.append([name, kind, len(body), len(values)])
        body += struct.pack(f"<{len(values)}{FORMATS[kind]}", *values)
    return [msgpack.packb({**message, "columns": table}), body]


def decode(frames):
    """The header as a dict; columns are its keys too, tuples (text columns: bytes)."""
    message = msgpack.unpackb(frames[0])
    for name, kind, offset, count in message.pop("columns", []):
        if kind == "u8":
            message[name] = frames[1][offset : offset + count]
        else:
            message[name] = struct.unpack_from(f"<{count}{FORMATS[kind]}", frames[1], offset)
    return message


class Frontend:
    def __init__(self, folder):
        self.server = json.loads((pathlib.Path(folder) / "frontend.json").read_text())
        self.context = zmq.Context()
        self.rows = []  # rows of textOutputs that nobody has asked for yet
        self.engine = self.connect("engine")
        self.welcome = self.wait(self.engine, "welcome")
        self.detokenizer = self.connect("detokenizer")
        self.wait(self.detokenizer, "welcome")
        attach = {"frontendId": self.welcome["frontendId"], "attachKey": self.welcome["attachKey"]}
        self.detokenizer.send_multipart(
            encode({"kind": "attach", **attach, "creditBytes": CREDIT_BYTES})
        )
        self.wait(self.detokenizer, "attached")

    def connect(self, name):
        socket = self.context.socket(zmq.DEALER)
        socket.linger = socket.sndhwm = socket.rcvhwm = 0
        if self.server[f"{name}Key"] is not None:  # tcp
            socket.curve_publickey, socket.curve_secretkey = zmq.curve_keypair()
            socket.curve_serverkey = self.server[f"{name}Key"].encode()
        socket.connect(self.server[name])
        hello = {"kind": "hello", "protocol": 3, "token": self.server["token"], "role": "client"}
        hello.update(index=0, generation=0, build=None, pid=os.getpid())
        socket.send_multipart(encode(hello))
        return socket

    def wait(self, socket, kind, **fields):
        """The next message of a kind on one socket; text that comes before it is kept."""
        while True:
            message = decode(socket.recv_multipart())
            if message["kind"] in ("refused", "peerLost"):
                sys.exit(f"{message['kind']}: {message}")
            if message["kind"] == "textOutputs":
                self.rows += rows_of(message)
            if message["kind"] == kind and all(message[k] == v for k, v in fields.items()):
                return message

    def tokenize(self, text):
        call = {"kind": "tokenize", "callId": 1, "text": text, "addSpecialTokens": True}
        self.detokenizer.send_multipart(encode(call))
        return self.wait(self.detokenizer, "textReply", callId=1)["tokenIds"]

    def add(self, request_id, token_ids, **sampling):
        request = {"kind": "addRequest", "requestId": request_id, "n": 1, "priority": 0}
        request.update(cacheSalt=None, sampling={**SAMPLING, **sampling}, text=TEXT)
        self.engine.send_multipart(encode(request, promptTokenIds=("i32", token_ids)))
        while True:
            answer = decode(self.engine.recv_multipart())
            if answer["kind"] == "rejected" and answer["requestId"] == request_id:
                sys.exit(f"rejected: {answer['error']['message']}")
            if answer["kind"] == "accepted" and answer["requestId"] == request_id:
                return

    def abort(self, request_id):
        self.engine.send_multipart(encode({"kind": "abort"}, requestId=("u32", [request_id])))

    def stream(self, request_id):
        """(text, finish reason) of each row; what was taken is granted again."""
        while True:
            while not self.rows:
                self.wait(self.detokenizer, "textOutputs")
            row = self.rows.pop(0)
            if row["requestId"] != request_id:
                continue
            size = len(row["text"])
            grant = {"requestId": ("u32", [request_id]), "bytes": ("u32", [size])}
            # The field and the column are both called bytes.
            self.detokenizer.send_multipart(encode({"kind": "credit", "bytes": size}, **grant))
            yield row["text"].decode(), row["finishReason"]
            if row["finishReason"] != "none":
                return


def rows_of(message):
    start = message["textStart"]
    return [
        {
            "requestId": request_id,
            "text": message["text"][start[i] : start[i + 1]],
            "finishReason": FINISH_REASONS[message["finishReason"][i]],
        }
        for i, request_id in enumerate(message["requestId"])
    ]


SAMPLING = {
    "temperature": 0,
    "topP": 1,
    "topK": 0,
    "minP": 0,
    "presencePenalty": 0,
    "frequencyPenalty": 0,
    "repetitionPenalty": 1,
    "seed": None,
    "maxTokens": 32,
    "minTokens": 0,
    "stopTokenIds": [],
    "ignoreEos": False,
    "logprobs": None,
    "promptLogprobs": None,
    "logitBias": None,
    "allowedTokenIds": None,
    "logprobTokenIds": None,
    "badWords": [],
    "repetitionDetection": None,
}
TEXT = {
    "detokenize": True,
    "stop": [],
    "includeStopStrInOutput": False,
    "skipSpecialTokens": True,
    "spacesBetweenSpecialTokens": True,
    "returnTokenIds": False,
    "streamInterval": 1,
    "finalOnly": False,
    "creditBytes": 64 * 1024,
}


def main():
    folder = sys.argv[1]
    prompt = sys.argv[2] if len(sys.argv) > 2 else "Once upon a time"
    frontend = Frontend(folder)
    token_ids = frontend.tokenize(prompt)

    frontend.add(1, token_ids)
    for text, reason in frontend.stream(1):
        print(text, end="", flush=True)
    print(f"\n[{reason}]")

    frontend.add(2, token_ids, maxTokens=None, ignoreEos=True)
    for i, (_, reason) in enumerate(frontend.stream(2)):
        if i == 0:
            frontend.abort(2)
    print(f"[{reason}]")


main()
