"""A handler made with lonnet.py: serve.py FORM [PATH]."""

import sys
import threading

import lonnet

lock, go, tries, runs = threading.Lock(), threading.Event(), {}, 0


def serve(request):
    global runs
    print("noise")
    _, verb, *rest = request.text.split(":", 2)
    words = [str(word or "none") for word in (request.sender, request.id, request.key)]
    if verb == "who":
        return " ".join(words + [request.text])
    if verb == "wait":
        go.wait(60)
        return "waited"
    if verb == "go":
        go.set()
        return "gone"
    with lock:
        if verb == "run":
            runs += 1
            return f"run {runs}"
        if verb == "later":
            tries[request.text] = tries.get(request.text, 0) + 1
            if tries[request.text] < 2:
                raise lonnet.Later
            return f"try {tries[request.text]} of {words[1]}"
    if verb == "nothing":
        return None
    if verb == "die":
        raise RuntimeError("no\nway")
    if verb == "lines":
        return b"a\nb"
    return request.raw


if sys.argv[1] == "tagged":
    lonnet.serve_tagged(sys.argv[2], serve)
elif sys.argv[1] == "line":
    lonnet.serve_lines(sys.argv[2], serve)
else:
    lonnet.worker_tagged(serve)
