"""Runs `paired.rs` and `torch_mlp.py` in turn, round after round, and prints the medians of both
and their ratio. Other work on the machine then weighs on both alike.

Usage, from the root of the repository, with a Python that has PyTorch:
  python3 host/kernels/benches/paired.py [rounds]
"""

import json
import pathlib
import statistics
import subprocess
import sys

HERE = pathlib.Path(__file__).parent
CASES = [
    ("train", "1", "51200"),
    ("train", "2", "51200"),
    ("infer", "1", "1"),
    ("infer", "1", "1024"),
    ("infer", "2", "1024"),
]


def built():
    """The benchmark, built in the profile that the program runs in."""
    command = ["cargo", "bench", "--profile", "dev", "-p", "sandcast-kernels", "--bench", "paired"]
    lines = subprocess.run(
        [*command, "--no-run", "--message-format", "json"], check=True, stdout=subprocess.PIPE
    ).stdout.splitlines()
    messages = (json.loads(line) for line in lines)
    return next(
        message["executable"]
        for message in messages
        if message.get("target", {}).get("name") == "paired" and message.get("executable")
    )


def figure(command, case):
    found = json.loads(subprocess.run([*command, *case], check=True, stdout=subprocess.PIPE).stdout)
    return found.get("rows_per_second") or found["microseconds"]


def main():
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    ours, theirs = [built()], [sys.executable, str(HERE / "torch_mlp.py")]
    print(f"medians of {rounds} rounds (least to most), sandcast and torch in turn")
    for case in CASES:
        pairs = [(figure(ours, case), figure(theirs, case)) for _ in range(rounds)]
        unit = "rows/s" if case[0] == "train" else "µs"
        cells = []
        for values in zip(*pairs):
            middle, least, most = statistics.median(values), min(values), max(values)
            form = "{:,.0f} ({:,.0f} to {:,.0f})" if middle > 100 else "{:.1f} ({:.1f} to {:.1f})"
            cells.append(form.format(middle, least, most))
        ratios = [a / b if case[0] == "train" else b / a for a, b in pairs]
        print(
            f"{case[0]} {case[2]} rows, {case[1]} threads: {cells[0]} {unit}, torch {cells[1]} {unit}, "
            f"{statistics.median(ratios):.2f} times as fast"
        )


main()
