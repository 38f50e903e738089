"""Trains a forest with `forest.rs` and with LightGBM in turn, round after round, on the same rows,
and prints the medians of both, their ratio, and the AUC of both on the same rows left out. Other
work on the machine then weighs on both alike.

Usage, from the root of the repository, with a Python that has lightgbm and numpy:
  python3 host/kernels/benches/forest.py [--rounds 5] [--adult adult.data]

`adult.data` is UCI Adult as it is published, with or without a line of names.
"""

import argparse
import csv
import ctypes
import itertools
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

try:
    import lightgbm
    import numpy
except ImportError:
    sys.exit("LightGBM is missing: python3 -m venv venv && venv/bin/pip install lightgbm numpy")

TREES = 200
ADULT_NUMBERS = [0, 2, 4, 10, 11, 12]
ADULT_CATEGORIES = [1, 3, 5, 6, 7, 8, 9, 13]


def built():
    """The benchmark, built in the profile that the program runs in."""
    command = ["cargo", "bench", "--profile", "dev", "-p", "sandcast-kernels", "--bench", "forest"]
    lines = subprocess.run(
        [*command, "--no-run", "--message-format", "json"], check=True, stdout=subprocess.PIPE
    ).stdout.splitlines()
    messages = (json.loads(line) for line in lines)
    return next(
        message["executable"]
        for message in messages
        if message.get("target", {}).get("name") == "forest" and message.get("executable")
    )


def generated():
    """200,000 rows of 30 numbers to learn from, and 50,000 to judge by."""
    random = numpy.random.default_rng(7)
    x = random.standard_normal((250_000, 30), dtype=numpy.float32)
    # A few columns of few values, of a long tail, and with numbers missing.
    x[:, 20:24] = numpy.round(x[:, 20:24] * 2)
    x[:, 24:27] = numpy.exp(x[:, 24:27])
    x[random.random(len(x)) < 0.1, 27] = numpy.nan
    score = (
        x[:, 0] * (x[:, 1] + 0.5)
        + numpy.sin(2 * x[:, 2])
        + numpy.abs(x[:, 3])
        + 0.5 * x[:, 20] * (x[:, 4] > 0)
        + numpy.log(x[:, 24])
        + numpy.nan_to_num(x[:, 27], nan=1.0)
        - 1.0
    )
    y = random.random(len(x)) < 1 / (1 + numpy.exp(-score))
    none = numpy.zeros((len(x), 0), dtype=numpy.int32)
    left_out = numpy.arange(len(x)) >= 200_000
    return x, none, y.astype(numpy.int32), left_out


def adult(path):
    """UCI Adult: a fifth of the rows, drawn by a seed, is left out."""
    with open(path, newline="") as file:
        rows = [row for row in csv.reader(file, skipinitialspace=True) if len(row) == 15]
    rows = [row for row in rows if row[0] != "age"]
    x = numpy.array([[row[c] for c in ADULT_NUMBERS] for row in rows], dtype=numpy.float32)
    categories = numpy.zeros((len(rows), len(ADULT_CATEGORIES)), dtype=numpy.int32)
    for place, column in enumerate(ADULT_CATEGORIES):
        known = sorted({row[column] for row in rows} - {"?"})
        numbers = {"?": 0, **{value: number for number, value in enumerate(known, 1)}}
        categories[:, place] = [numbers[row[column]] for row in rows]
    y = numpy.array([row[14].rstrip(".") == ">50K" for row in rows], dtype=numpy.int32)
    left_out = numpy.random.default_rng(7).random(len(rows)) < 0.2
    return x, categories, y, left_out


def auc(labels, scores):
    """By ranks, equal ones shared (Hanley and McNeil 1982)."""
    _, places, counts = numpy.unique(scores, return_inverse=True, return_counts=True)
    ranks = (numpy.cumsum(counts) - (counts - 1) / 2)[places]
    positive = labels == 1
    count = positive.sum()
    return (ranks[positive].sum() - count * (count + 1) / 2) / (count * (len(labels) - count))


def log_loss(labels, shares):
    shares = numpy.clip(shares.astype(numpy.float64), 1e-15, 1 - 1e-15)
    return -numpy.mean(numpy.where(labels == 1, numpy.log(shares), numpy.log(1 - shares)))


def one_row_fast(booster, rows, threads):
    """Microseconds of a row by the fastest call that LightGBM's library has."""
    library = lightgbm.basic._LIB
    fast, length, result = ctypes.c_void_p(), ctypes.c_int64(), ctypes.c_double()
    parameters = f"num_threads={threads}".encode()
    code = library.LGBM_BoosterPredictForMatSingleRowFastInit(
        booster._handle, 0, 0, -1, 1, rows.shape[1], parameters, ctypes.byref(fast)
    )
    assert code == 0
    rows = numpy.ascontiguousarray(rows, dtype=numpy.float64)
    call = library.LGBM_BoosterPredictForMatSingleRowFast
    # Another row each time, as a server sees them: one row again and again is learnt by heart.
    addresses = itertools.cycle(ctypes.c_void_p(row.ctypes.data) for row in rows)
    length, result = ctypes.byref(length), ctypes.byref(result)
    return fastest(5_000, lambda: call(fast, next(addresses), length, result))


def fastest(calls, call):
    found = []
    for _ in range(7):
        started = time.perf_counter()
        for _ in range(calls):
            call()
        found.append((time.perf_counter() - started) * 1e6 / calls)
    return min(found)


def theirs(data, threads, leaves, trees, learning_rate):
    x, categories, y, left_out = data
    joined = numpy.hstack([x, categories.astype(numpy.float32)])
    training, test = joined[~left_out], joined[left_out]
    parameters = {
        "objective": "binary",
        "num_leaves": leaves,
        "learning_rate": learning_rate,
        "num_threads": threads,
        "verbosity": -1,
        "seed": 7,
    }
    found = []
    # Which of its two ways to lay out histograms is faster depends on the data.
    for way in ["force_col_wise", "force_row_wise"]:
        started, before = time.perf_counter(), time.process_time()
        places = list(range(x.shape[1], joined.shape[1]))
        rows = lightgbm.Dataset(training, y[~left_out], categorical_feature=places)
        booster = lightgbm.train({**parameters, way: True}, rows, num_boost_round=trees)
        found.append((time.perf_counter() - started, time.process_time() - before, booster))
    seconds, processor, booster = min(found, key=lambda one: one[0])
    few = test[:1024]
    return {
        "train_seconds": seconds,
        "train_processor_seconds": processor,
        "one_row_microseconds": one_row_fast(booster, test[:1024], threads),
        "one_row_python_microseconds": fastest(200, lambda: booster.predict(test[:1], num_threads=threads)),
        "batch_microseconds": fastest(20, lambda: booster.predict(few, num_threads=threads)),
    }, booster.predict(test, num_threads=threads)


def ours(program, folder, plan):
    path = folder / "plan.json"
    path.write_text(json.dumps(plan))
    found = json.loads(subprocess.run([program, path], check=True, stdout=subprocess.PIPE).stdout)
    return found, numpy.fromfile(folder / "sandcast.shares", dtype=numpy.float32)


def write(folder, data):
    x, categories, y, left_out = data
    for part, chosen in [("training", ~left_out), ("test", left_out)]:
        x[chosen].tofile(folder / f"{part}.numbers")
        categories[chosen].tofile(folder / f"{part}.categories")
        y[chosen].tofile(folder / f"{part}.labels")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--adult")
    arguments = parser.parse_args()
    program = built()
    cases = [("200,000 x 30", generated(), leaves, threads, TREES, 0.1) for leaves in (31, 63) for threads in (1, 2)]
    if arguments.adult:
        data = adult(arguments.adult)
        cases += [("UCI Adult", data, 31, threads, TREES, 0.1) for threads in (1, 2)]
    print(f"medians of {arguments.rounds} rounds (least to most), sandcast and LightGBM {lightgbm.__version__} in turn")
    for name, data, leaves, threads, trees, learning_rate in cases:
        with tempfile.TemporaryDirectory() as folder:
            folder = pathlib.Path(folder)
            write(folder, data)
            plan = {
                "numbers": data[0].shape[1],
                "categories": data[1].shape[1],
                "threads": threads,
                "leaves": leaves,
                "rounds": trees,
                "learning_rate": learning_rate,
            }
            labels = data[2][data[3]]
            pairs = []
            for _ in range(arguments.rounds):
                mine, shares = ours(program, folder, plan)
                other, other_shares = theirs(data, threads, leaves, trees, learning_rate)
                pairs.append((mine, other))
            print(f"{name}, {trees} trees of {leaves} leaves, {threads} threads:")
            print(
                f"  AUC {auc(labels, shares):.5f}, LightGBM {auc(labels, other_shares):.5f}; "
                f"log loss {log_loss(labels, shares):.5f}, LightGBM {log_loss(labels, other_shares):.5f}"
            )
            for key, unit in [
                ("train_seconds", "s"),
                ("train_processor_seconds", "s"),
                ("one_row_microseconds", "µs"),
                ("batch_microseconds", "µs"),
            ]:
                cells = []
                for values in zip(*[(mine[key], other[key]) for mine, other in pairs]):
                    cells.append(f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})")
                ratio = statistics.median(other[key] / mine[key] for mine, other in pairs)
                print(f"  {key}: {cells[0]} {unit}, LightGBM {cells[1]} {unit}, {ratio:.2f} times as fast")
            python = statistics.median(other["one_row_python_microseconds"] for _, other in pairs)
            print(f"  LightGBM one row by its Python call: {python:.0f} µs", flush=True)


main()
