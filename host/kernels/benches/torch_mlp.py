"""The multilayer perceptron of `model/mod.rs` in PyTorch, measured the same way.

Usage: torch_mlp.py train <threads> <rows> | infer <threads> <rows>

Prints one JSON object with the figures that `paired.rs` prints. PyTorch is not installed by
this: `python3 -m venv venv && venv/bin/pip install torch numpy`.
"""

import json
import sys
import time

FEATURES = 30
BATCH = 256


def main():
    try:
        import torch
    except ImportError:
        sys.exit("PyTorch is missing: python3 -m venv venv && venv/bin/pip install torch numpy")
    what = sys.argv[1] if len(sys.argv) > 1 else "train"
    threads = int(sys.argv[2]) if len(sys.argv) > 2 else 1
    rows = int(sys.argv[3]) if len(sys.argv) > 3 else 51_200
    torch.set_num_threads(threads)
    torch.manual_seed(7)
    x = torch.rand(rows, FEATURES) * 2 - 1
    y = (x[:, 0] * x[:, 1] > 0).long()
    model = torch.nn.Sequential(
        torch.nn.Linear(FEATURES, 256),
        torch.nn.ReLU(),
        torch.nn.Linear(256, 128),
        torch.nn.ReLU(),
        torch.nn.Linear(128, 2),
    )

    def seconds(work):
        started, before = time.perf_counter(), time.thread_time()
        work()
        return time.perf_counter() - started, time.thread_time() - before

    if what == "infer":
        model.eval()

        def calls(count):
            with torch.inference_mode():
                for _ in range(count):
                    torch.softmax(model(x), dim=1)

        count = max(2_000_000 // (rows + 200), 10)
        calls(count // 10 + 1)
        figures = [each * 1e6 / count for each in seconds(lambda: calls(count))]
        unit = "microseconds"
    else:
        # The fastest of its Adams on a processor.
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)
        criterion = torch.nn.CrossEntropyLoss()

        def train(epochs):
            for _ in range(epochs):
                order = torch.randperm(rows)
                for first in range(0, rows, BATCH):
                    index = order[first : first + BATCH]
                    optimizer.zero_grad(set_to_none=True)
                    criterion(model(x[index]), y[index]).backward()
                    optimizer.step()

        train(1)
        figures = [3 * rows / each for each in seconds(lambda: train(3))]
        unit = "rows_per_second"
    print(
        json.dumps(
            {
                "program": f"torch {torch.__version__}",
                "what": what,
                "threads": threads,
                "rows": rows,
                unit: figures[0],
                # The thread's own: backward runs on another, so it says nothing of training.
                f"{unit}_of_processor_time": figures[1] if what == "infer" else None,
            }
        )
    )


main()
