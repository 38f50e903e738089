"""The multilayer perceptron of `model/mod.rs` in ONNX Runtime, on the processor, measured the same way.

Usage: onnx_mlp.py infer <threads> <rows>

Prints one JSON object with the figures that `paired.rs` prints. Nothing is installed by this:
`python3 -m venv venv && venv/bin/pip install onnxruntime onnx numpy`.
"""

import json
import sys
import time

LAYERS = [30, 256, 128, 2]


def network(onnx, numpy):
    """The network as a model file, with weights drawn as good as any."""
    draw = numpy.random.default_rng(7)
    nodes, weights, last = [], [], "x"
    for index, (wide, out) in enumerate(zip(LAYERS, LAYERS[1:])):
        bound = (6.0 / (wide + out)) ** 0.5
        matrix = draw.uniform(-bound, bound, (wide, out)).astype("float32")
        weights.append(onnx.numpy_helper.from_array(matrix, f"w{index}"))
        weights.append(onnx.numpy_helper.from_array(numpy.zeros(out, "float32"), f"b{index}"))
        nodes.append(onnx.helper.make_node("Gemm", [last, f"w{index}", f"b{index}"], [f"s{index}"]))
        is_last = index == len(LAYERS) - 2
        last = "y" if is_last else f"h{index}"
        kind, more = ("Softmax", {"axis": 1}) if is_last else ("Relu", {})
        nodes.append(onnx.helper.make_node(kind, [f"s{index}"], [last], **more))
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        nodes,
        "perceptron",
        [value("x", onnx.TensorProto.FLOAT, ["rows", LAYERS[0]])],
        [value("y", onnx.TensorProto.FLOAT, ["rows", LAYERS[-1]])],
        weights,
    )
    versions = [onnx.helper.make_opsetid("", 17)]
    return onnx.helper.make_model(graph, opset_imports=versions, ir_version=8).SerializeToString()


def main():
    try:
        import numpy
        import onnx
        import onnxruntime
    except ImportError:
        sys.exit("missing: python3 -m venv venv && venv/bin/pip install onnxruntime onnx numpy")
    threads = int(sys.argv[2]) if len(sys.argv) > 2 else 1
    rows = int(sys.argv[3]) if len(sys.argv) > 3 else 1
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        network(onnx, numpy), options, providers=["CPUExecutionProvider"]
    )
    x = numpy.random.default_rng(1).uniform(-1, 1, (rows, LAYERS[0])).astype("float32")
    # Bound once, so that what is measured is the network and not the conversion of arrays.
    binding = session.io_binding()
    binding.bind_cpu_input("x", x)
    binding.bind_output("y", "cpu")

    def calls(count):
        for _ in range(count):
            session.run_with_iobinding(binding)

    count = max(2_000_000 // (rows + 200), 10)
    calls(count // 10 + 1)
    started = time.perf_counter()
    calls(count)
    figure = (time.perf_counter() - started) * 1e6 / count
    print(
        json.dumps(
            {
                "program": f"onnxruntime {onnxruntime.__version__}",
                "what": "infer",
                "threads": threads,
                "rows": rows,
                "microseconds": figure,
            }
        )
    )


main()
