"""Serves a classifier to `sora eval --exec` and `sora eval --url`.

    sora eval --exec "python serve.py MODEL --shape 3,32,32" --dataset cifar10 --epsilon 8/255
    python serve.py MODEL --shape 3,32,32 --port 8000 &
    sora eval --url http://127.0.0.1:8000 --dataset cifar10 --epsilon 8/255

MODEL is a TorchScript file (.pt), an ONNX file (.onnx, through onnxruntime), or an .npz archive with the `weight`
[classes, c * h * w] and `bias` of a linear classifier and its `shape` [c, h, w]. For a model of your own replace
`load`. --shape is for files that do not say it, as no TorchScript file does. With --labels the answers are classes alone. docs/black-box.md describes both protocols.
"""

import argparse
import io
import json
import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np


def load(path, shape):
    """A function from images [n, c, h, w] in [0, 1], f32, to logits [n, k]; the shape of an image."""
    if path.endswith(".npz"):
        archive = np.load(path)
        weight, bias = archive["weight"].astype(np.float32), archive["bias"].astype(np.float32)
        return lambda x: x.reshape(len(x), -1) @ weight.T + bias, [int(size) for size in archive["shape"]]
    if path.endswith(".onnx"):
        import onnxruntime

        session = onnxruntime.InferenceSession(path, providers=onnxruntime.get_available_providers())
        image = session.get_inputs()[0]
        known = all(isinstance(size, int) for size in image.shape[1:])
        return lambda x: session.run(None, {image.name: x})[0], image.shape[1:] if known else shape
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    module = torch.jit.load(path, map_location=device).eval()

    def logits(x):
        with torch.no_grad():
            return module(torch.from_numpy(x).to(device)).float().cpu().numpy()

    return logits, shape


class Model:
    """What is served."""

    def __init__(self, path, shape, labels):
        self.logits, shape = load(path, shape)
        if shape is None:
            sys.exit("serve.py: the file does not say the shape of its images: give --shape 3,32,32")
        classes = self.logits(np.zeros([1, *shape], np.float32)).shape[1]
        self.labels = labels
        self.description = {
            "protocol": 1,
            "shape": list(shape),
            "classes": classes,
            "answers": "labels" if labels else "logits",
        }

    def answer(self, x):
        """Logits [n, k], f32, or classes [n], i32."""
        logits = np.asarray(self.logits(x), dtype=np.float32)
        return logits.argmax(1).astype("<i4") if self.labels else np.ascontiguousarray(logits, "<f4")


def over_pipes(model, out):
    """Reads requests from standard input and writes answers to `out`, until the input ends."""

    def send(head, body=b""):
        out.write(json.dumps(head).encode() + b"\n" + body)
        out.flush()

    send(model.description)
    while line := sys.stdin.buffer.readline():
        request = json.loads(line)
        count = int(np.prod(request["shape"]))
        x = np.frombuffer(sys.stdin.buffer.read(4 * count), "<f4").reshape(request["shape"])
        try:
            answer = model.answer(x)
        except Exception as e:
            send({"id": request["id"], "error": f"{type(e).__name__}: {e}"})
            continue
        send({"id": request["id"], "shape": answer.shape}, answer.tobytes())


def over_http(model, port):
    """GET says what the model is; images are posted as an npy array, and so is the answer."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def send(self, status, kind, body):
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self):
            self.send(200, "application/json", json.dumps(model.description).encode())

        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            try:
                out = io.BytesIO()
                np.save(out, model.answer(np.load(io.BytesIO(body), allow_pickle=False)))
            except Exception as e:
                self.send(500, "application/json", json.dumps({"error": f"{type(e).__name__}: {e}"}).encode())
                return
            self.send(200, "application/x-npy", out.getvalue())

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    print(f"http://127.0.0.1:{server.server_address[1]}", flush=True)
    server.serve_forever()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--shape", type=lambda text: [int(size) for size in text.split(",")])
    parser.add_argument("--labels", action="store_true", help="answer with classes instead of logits")
    parser.add_argument("--port", type=int, help="serve HTTP there (0: any) instead of pipes")
    args = parser.parse_args()
    if args.port is not None:
        over_http(Model(args.model, args.shape, args.labels), args.port)
        return
    # What libraries print goes to standard error: standard output is the protocol's.
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    over_pipes(Model(args.model, args.shape, args.labels), out)


if __name__ == "__main__":
    main()
