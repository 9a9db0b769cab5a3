#!/bin/sh
# Keeps notes: `note:TEXT` becomes a line of the file "notes" in the folder that is the first argument. Run once for each
# request (exec): the request on standard input, the answer on standard output, who asks in the environment.
set -u

# 75: not now. A critical request stays with its sender and comes again; a plain one is answered an error.
cd "$1" 2>/dev/null || exit 75

IFS= read -r request || exit 1
text=${request#note:}

# A critical message has a name of its own, the same when it comes again. A mark of it makes that two notes never become of one.
if [ -n "$LONNET_ID" ]; then
    mark=$(printf %s "$LONNET_FROM.$LONNET_ID" | tr / .)
    [ ! -e "done.$mark" ] || { echo "kept before"; exit 0; }
    printf '%s %s\n' "$LONNET_FROM" "$text" >>notes && : >"done.$mark" || exit 75
else
    printf '%s %s\n' "$LONNET_FROM" "$text" >>notes || exit 75
fi

# What is said here is in lond.log.
echo "a note of $LONNET_FROM" >&2
echo kept
