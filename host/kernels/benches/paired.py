"""Runs `paired.rs` and its peers in PyTorch or ONNX Runtime in turn, round after round, and prints the medians of
both and their ratio. Other work on the machine then weighs on both alike.

Usage, from the root of the repository, with a Python that has PyTorch:
  python3 host/kernels/benches/paired.py [rounds] [mlp | onnx | gpt | text file]

`onnx` is the perceptron's predictions beside ONNX Runtime, and wants a Python with that.

With a text file, both decoders learn it in 2,000 steps, once.
"""

import json
import pathlib
import statistics
import subprocess
import sys

HERE = pathlib.Path(__file__).parent
CASES = {
    "mlp": [
        ("train", "1", "51200"),
        ("train", "2", "51200"),
        ("infer", "1", "1"),
        ("infer", "1", "1024"),
        ("infer", "2", "1024"),
    ],
    "onnx": [
        ("infer", "1", "1"),
        ("infer", "1", "1024"),
        ("infer", "2", "1024"),
    ],
    "gpt": [
        ("gpt", "1", "30"),
        ("gpt", "2", "30"),
        ("decode", "1", "100"),
        ("decode", "2", "100"),
    ],
}
PEERS = {"train": "torch_mlp.py", "infer": "torch_mlp.py"}
# The unit of a case, and whether more of it is better.
UNITS = {
    "rows_per_second": ("rows/s", True),
    "tokens_per_second": ("tokens/s", True),
    "microseconds": ("µs", False),
    "milliseconds": ("ms", False),
    "validation_loss": ("nats a character", False),
}


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
    output = subprocess.run([*command, *case], check=True, stdout=subprocess.PIPE).stdout
    found = json.loads(output)
    unit = next(unit for unit in UNITS if unit in found)
    return unit, found[unit]


def main():
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    chosen = sys.argv[2] if len(sys.argv) > 2 else None
    cases = CASES.get(chosen) if chosen else CASES["mlp"] + CASES["gpt"]
    if cases is None:
        cases, rounds = [("quality", "1", chosen)], 1
    ours = [built()]
    peer = "onnxruntime" if chosen == "onnx" else "torch"
    print(f"medians of {rounds} rounds (least to most), sandcast and {peer} in turn")
    for case in cases:
        script = PEERS.get(case[0], "torch_gpt.py") if peer == "torch" else "onnx_mlp.py"
        theirs = [sys.executable, str(HERE / script)]
        pairs = [(figure(ours, case), figure(theirs, case)) for _ in range(rounds)]
        unit, more = UNITS[pairs[0][0][0]]
        pairs = [(a[1], b[1]) for a, b in pairs]
        cells = []
        for values in zip(*pairs):
            middle, least, most = statistics.median(values), min(values), max(values)
            form = "{:,.0f} ({:,.0f} to {:,.0f})" if middle > 300 else "{:.4g} ({:.4g} to {:.4g})"
            cells.append(form.format(middle, least, most))
        ratios = [a / b if more else b / a for a, b in pairs]
        print(
            f"{case[0]} {case[2]}, {case[1]} threads: {cells[0]} {unit}, {peer} {cells[1]} {unit}, "
            f"{statistics.median(ratios):.2f} times as good"
        )


main()
