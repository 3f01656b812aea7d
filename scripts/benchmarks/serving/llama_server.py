"""llama.cpp's server with a model, through xllamacpp: `python llama_server.py FILE.gguf PORT CLIENTS`.

It needs no qa_lm: the peers have an environment of their own. Weights and cache as in the file and in float32, two
threads, a slot for each client.
"""

import signal
import sys

import xllamacpp

SLOT_TOKENS = 256


def main() -> None:
    """Serve until a signal."""
    path, port, clients = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    params = xllamacpp.CommonParams()
    params.model.path = path
    params.port = port
    params.n_parallel, params.n_ctx = clients, clients * SLOT_TOKENS
    params.cpuparams.n_threads = 2
    params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    server = xllamacpp.Server(params)
    print(server.listening_address, flush=True)
    signal.sigwait({signal.SIGTERM, signal.SIGINT})


if __name__ == "__main__":
    main()
