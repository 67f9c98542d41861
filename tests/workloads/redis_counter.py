"""A real redis client (redis-py) that increments a counter without pause over one connection.

``redis_counter.py ADDRESS [PAUSE_S [NAME]]``: prints ``ready`` after the first hundred, then answers each line on
standard input with a line of JSON; ``stop`` ends it. Reconnecting is off: an error is an error. With a pause it
leaves room on an emulated machine, which has one processor for the server and for what moves it. REDIS_ANSWER_S
is how long it waits for an answer, 30 s: on such a machine a server may be frozen for longer.
"""

import json
import os
import select
import sys
import time

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry


def main() -> int:
    """Count until told to stop."""
    client = redis.Redis(
        host=sys.argv[1],
        single_connection_client=True,
        retry=Retry(NoBackoff(), 0),
        socket_timeout=float(os.environ.get("REDIS_ANSWER_S", "30")),
    )
    name = sys.argv[3] if len(sys.argv) > 3 else "counter"
    client.delete(name)
    port = client.connection._sock.getsockname()[1]
    pause_s = float(sys.argv[2]) if len(sys.argv) > 2 else 0.0
    count, wrong, longest_s, error = 0, 0, 0.0, ""
    while True:
        began = time.monotonic()
        try:
            answer = client.incr(name)
        except redis.RedisError as failure:
            error = f"{type(failure).__name__}: {failure}"
        else:
            count += 1
            wrong += answer != count
        longest_s = max(longest_s, time.monotonic() - began)
        if count == 100:
            print("ready", flush=True)
        asked = select.select([0], [], [], pause_s)[0]
        if not (asked or error):
            continue
        line = sys.stdin.readline()
        reconnected = not error and client.connection._sock.getsockname()[1] != port
        said = {
            "incremented": count,
            "wrong_answers": wrong,
            "longest_answer_ms": round(1000 * longest_s, 1),
            "error": error,
            "reconnected": reconnected,
            "local_port": port,
        }
        print(json.dumps(said), flush=True)
        if error or "stop" in line or not line:
            return 1 if error or wrong or reconnected else 0
        longest_s = 0.0


if __name__ == "__main__":
    sys.exit(main())
