#!/usr/bin/env python3
"""Adds up: `sum:1 2 3` is answered 6. Kept running (worker, format = "tagged"): each line begins with a tag, and so does its
answer; a few threads work, and answers go out in the order in which they are ready."""
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

out = threading.Lock()


def answer(line):
    tag, who, message, key, request = line.split(" ", 4)
    numbers = request.partition(":")[2].split()
    try:
        said = f"{tag} {sum(int(number) for number in numbers)}"
    except ValueError:
        said = f"{tag} error:sum: whole numbers are wanted"
        print(f"{who} asks for {request!r}", file=sys.stderr, flush=True)  # in lond.log
    with out:  # a line is one piece, and goes out at once
        print(said, flush=True)


with ThreadPoolExecutor(max_workers=4) as pool:
    for line in sys.stdin:  # ends when lond closes it
        pool.submit(answer, line.rstrip("\n"))
