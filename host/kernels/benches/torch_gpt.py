"""The decoder of `measure/programs.rs` in PyTorch, measured the same way.

Usage: torch_gpt.py gpt <threads> <steps> | decode <threads> <tokens> | quality <threads> <text>

Prints one JSON object with the figures that `paired.rs` prints. PyTorch is not installed by
this: `python3 -m venv venv && venv/bin/pip install torch numpy`.
"""

import json
import math
import pathlib
import sys
import time

CONTEXT, LAYERS, WIDTH, HEADS, BATCH = 128, 4, 128, 4, 16


def model_of(torch, vocabulary):
    nn, functional = torch.nn, torch.nn.functional

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
            # One product for query, key and value: the faster way here.
            self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
            self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

        def forward(self, x, kept=None):
            rows, length, _ = x.shape
            qkv = self.qkv(self.norm1(x)).view(rows, length, 3, HEADS, WIDTH // HEADS)
            query, key, value = qkv.permute(2, 0, 3, 1, 4)
            if kept is not None:
                if kept:
                    key, value = torch.cat([kept[0], key], 2), torch.cat([kept[1], value], 2)
                kept[:] = [key, value]
            causal = kept is None or length > 1
            seen = functional.scaled_dot_product_attention(query, key, value, is_causal=causal)
            x = x + self.out(seen.transpose(1, 2).reshape(rows, length, WIDTH))
            return x + self.down(functional.gelu(self.up(self.norm2(x))))

    class Decoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.tokens = nn.Embedding(vocabulary, WIDTH)
            self.positions = nn.Embedding(CONTEXT, WIDTH)
            self.blocks = nn.ModuleList(Block() for _ in range(LAYERS))
            self.norm = nn.LayerNorm(WIDTH)
            self.head = nn.Linear(WIDTH, vocabulary, bias=False)
            for name, weights in self.named_parameters():
                if name.endswith("bias"):
                    nn.init.zeros_(weights)
                elif "norm" not in name:
                    small = name.endswith(("out.weight", "down.weight"))
                    nn.init.normal_(weights, std=0.02 / math.sqrt(2 * LAYERS) if small else 0.02)

        def forward(self, tokens, kept=None, first=0):
            at = torch.arange(first, first + tokens.shape[1])
            x = self.tokens(tokens) + self.positions(at)
            for index, block in enumerate(self.blocks):
                x = block(x, None if kept is None else kept[index])
            return self.head(self.norm(x))

    return Decoder()


def main():
    try:
        import torch
    except ImportError:
        sys.exit("PyTorch is missing: python3 -m venv venv && venv/bin/pip install torch numpy")
    functional = torch.nn.functional
    what = sys.argv[1] if len(sys.argv) > 1 else "gpt"
    threads = int(sys.argv[2]) if len(sys.argv) > 2 else 1
    torch.set_num_threads(threads)
    torch.manual_seed(7)

    def optimizer_of(model):
        # The fastest of its AdamWs on a processor.
        return torch.optim.AdamW(
            model.parameters(), lr=1e-3, betas=(0.9, 0.99), weight_decay=0.01, fused=True
        )

    def step(model, optimizer, tokens, labels):
        logits = model(tokens)
        loss = functional.cross_entropy(logits.view(-1, logits.shape[-1]), labels.reshape(-1))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    figures = {"program": "torch", "what": what, "threads": threads}
    if what == "gpt":
        count = int(sys.argv[3]) if len(sys.argv) > 3 else 20
        model = model_of(torch, 65)
        optimizer = optimizer_of(model)
        tokens = torch.randint(0, 65, (BATCH, CONTEXT + 1))

        def steps(count):
            for _ in range(count):
                step(model, optimizer, tokens[:, :-1], tokens[:, 1:])

        steps(3)
        started = time.perf_counter()
        steps(count)
        figures["milliseconds"] = (time.perf_counter() - started) * 1e3 / count
    elif what == "decode":
        count = min(int(sys.argv[3]) if len(sys.argv) > 3 else 100, CONTEXT - 1)
        model = model_of(torch, 65).eval()

        def write():
            kept, token = [[] for _ in range(LAYERS)], torch.tensor([[1]])
            for first in range(count):
                logits = model(token, kept, first)
                token = torch.multinomial(torch.softmax(logits[:, -1], 1), 1)

        with torch.inference_mode():
            write()
            started = time.perf_counter()
            for _ in range(5):
                write()
        figures["tokens_per_second"] = 5 * count / (time.perf_counter() - started)
    else:
        text = pathlib.Path(sys.argv[3]).read_text()
        letters = sorted(set(text))
        places = {letter: place for place, letter in enumerate(letters)}
        stream = torch.tensor([places[letter] for letter in text])
        cut = len(stream) * 9 // 10
        training, validation = stream[:cut], stream[cut:]
        model = model_of(torch, len(letters))
        optimizer = optimizer_of(model)
        started = time.perf_counter()
        steps, warmup = 2000, 100
        for index in range(steps):
            share = (index + 1) / warmup
            if index >= warmup:
                part = (index - warmup) / (steps - warmup)
                share = 0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * part))
            optimizer.param_groups[0]["lr"] = 2e-3 * share
            first = torch.randint(0, len(training) - CONTEXT, (BATCH,))
            rows = torch.stack([training[at : at + CONTEXT + 1] for at in first])
            step(model, optimizer, rows[:, :-1], rows[:, 1:])
        model.eval()
        count = (len(validation) - 1) // CONTEXT
        rows = torch.stack(
            [validation[at * CONTEXT : at * CONTEXT + CONTEXT + 1] for at in range(count)]
        )

        def loss(part):
            logits = model(part[:, :-1]).transpose(1, 2)
            return functional.cross_entropy(logits, part[:, 1:], reduction="sum")

        with torch.inference_mode():
            total = sum(float(loss(part)) for part in rows.split(32))
        figures["validation_loss"] = total / (count * CONTEXT)
        figures["seconds"] = time.perf_counter() - started
    print(json.dumps(figures))


main()
