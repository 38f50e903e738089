#!/usr/bin/env python3
"""What the audit log costs a run: its share of the run's time, and of its system calls.

    python3 host/audit/share.py target/debug/sandcast examples/credit-risk

It runs the pipeline in a state folder of its own: once, so that everything is compiled; then `--rounds`
times with `--fresh`, for the time from `run-started` to `run-finished`; then once with the system calls
timed by `strace`, whose own time for each call is in that figure, so that it is too high. The time that
the same entries take without strace says `SANDCAST_BENCH_LOG=FOLDER cargo bench -p sandcast-audit
--bench log nothing`, with the folder that is printed.
"""

import argparse
import collections
import datetime
import json
import pathlib
import re
import statistics
import subprocess
import tempfile

CALL = re.compile(r"^(\d+) +(?:<\.\.\. )?(\w+)(.*)<([0-9.]+)>$")


def last_run(audit):
    lines = [json.loads(line) for line in (audit / "log.jsonl").read_text().splitlines()]
    start = max(n for n, line in enumerate(lines) if line["event"]["event"] == "run-started")
    return lines[start:]


def seconds(line):
    return datetime.datetime.fromisoformat(line["time"][:26].rstrip("Z") + "+00:00").timestamp()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("program")
    parser.add_argument("pipeline")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    state = pathlib.Path(tempfile.mkdtemp(prefix="sandcast-share-"))
    audit = state / "audit"
    command = [options.program, "--quiet", "run", "--fresh", "--state", str(state), options.pipeline]
    quiet = {"stdout": subprocess.DEVNULL, "check": True}
    subprocess.run(command, **quiet)
    runs = []
    for _ in range(options.rounds):
        subprocess.run(command, **quiet)
        lines = last_run(audit)
        runs.append(seconds(lines[-1]) - seconds(lines[0]))
    trace = state / "trace"
    calls = "trace=%file,%desc"
    subprocess.run(["strace", "-f", "-T", "-y", "-o", trace, "-e", calls, *command], **quiet)
    entries = len(last_run(audit))
    spent, counts = collections.Counter(), collections.Counter()
    # What another thread came between is told in two lines; the second has the time, the first the path.
    unfinished = {}
    for line in trace.read_text(errors="replace").splitlines():
        thread = line.split(" ", 1)[0]
        if line.endswith("<unfinished ...>"):
            unfinished[thread] = line
            continue
        found = CALL.match(line)
        if not found:
            continue
        _, name, rest, time = found.groups()
        if "resumed>" in rest:
            rest = unfinished.pop(thread, "") + rest
        if f"{audit}/" in rest or f"{audit}>" in rest:
            spent[name] += float(time)
            counts[name] += 1
    total = sum(spent.values())
    run = statistics.median(runs)
    print(f"{entries} entries in a run of {run:.3f} s (median of {len(runs)}, {min(runs):.3f} to {max(runs):.3f})")
    for name, time in spent.most_common():
        print(f"  {name:12} {counts[name]:5}  {time * 1e3:8.2f} ms")
    print(f"  all          {sum(counts.values()):5}  {total * 1e3:8.2f} ms under strace, {total / run:.1%} of the run")
    print(f"the log is in {audit}")


if __name__ == "__main__":
    main()
