"""Asks with lonnet.py what its standard input says, a line each, and prints what came of it."""

import sys

import lonnet


def said(ask):
    try:
        return [f"{type(outcome).__name__} {outcome.text}" for outcome in ask()]
    except lonnet.LonnetError as error:
        return [type(error).__name__]


with lonnet.Client(sys.argv[1], sys.argv[2]) as peer:
    for line in sys.stdin:
        timeout, key, *requests = line.rstrip("\n").split("\t")
        if key == "plain":
            outcomes = said(lambda: [peer.reply(requests[0], timeout=float(timeout))])
        elif key == "many":
            outcomes = said(lambda: peer.map(requests, timeout=float(timeout)))
        else:
            outcomes = said(lambda: [peer.critical(requests[0], key or None, timeout=float(timeout))])
        print("\t".join(outcomes), flush=True)
